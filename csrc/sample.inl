// What sampling needs of every logit: the largest of each block, and the sum of exponentials. Choosing among the few that
// remain is plain C++ (sample.cpp). Sums run within a block, then over blocks in order: one order, whatever the caller.

namespace kogata {
namespace {

constexpr float kInfinity = __builtin_inff();
constexpr float kLowest = -3.4028234663852886e38f;

inline F sample_load(const float* x, int64_t begin, int64_t n) {  // beyond the end: -inf
  if (begin + W <= n) return f_load(x + begin);
  float rest[W];
  for (int64_t i = 0; i < W; ++i) rest[i] = begin + i < n ? x[begin + i] : -kInfinity;
  return f_load(rest);
}

void block_max(const float* x, int64_t n, float* maxima) {
  const F lowest = f_set1(kLowest), zero = f_zero();
  for (int64_t begin = 0; begin < n; begin += kSampleBlock) {
    const int64_t end = begin + kSampleBlock < n ? begin + kSampleBlock : n;
    F best = f_set1(-kInfinity), poison = f_zero();
    for (int64_t i = begin; i < end; i += W) {
      const F v = sample_load(x, i, end);
      best = f_max(best, v);
      // 0 times a number is 0, times NaN or infinity it is NaN. Of two operands one of which is NaN, f_max gives the
      // second on x86 and the NaN on Arm, so -inf becomes a number here and NaN stays.
      poison = f_fma(f_max(lowest, v), zero, poison);
    }
    maxima[begin / kSampleBlock] = f_hmax(best) + f_sum(poison);
  }
}

double sum_exp(const float* x, int64_t n, float shift, float scale, float* out) {
  const F shifts = f_set1(shift), scales = f_set1(scale), zero = f_zero();
  const F least = f_exp(f_set1(-87.0f));  // what f_exp gives for everything below: nothing at all here
  double total = 0.0;
  for (int64_t begin = 0; begin < n; begin += kSampleBlock) {
    const int64_t end = begin + kSampleBlock < n ? begin + kSampleBlock : n;
    F sum = f_zero();
    for (int64_t i = begin; i < end; i += W) {
      const F v = f_mul(f_sub(sample_load(x, i, end), shifts), scales);
      const F weight = f_max(f_sub(f_exp(v), least), zero);
      sum = f_add(sum, weight);
      if (!out) continue;
      if (i + W <= end) {
        f_store(out + i, weight);
      } else {
        f_store_n(out + i, weight, static_cast<int>(end - i));
      }
    }
    total += static_cast<double>(f_sum(sum));
  }
  return total;
}

}  // namespace
}  // namespace kogata
