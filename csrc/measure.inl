// What the arithmetic units and the memory of this machine give, by loops that do nothing else.

namespace kogata {
namespace {

constexpr int kChains = 12;  // independent accumulators: more than latency times issue width

double peak_f32(int64_t iterations) {
  F acc[kChains];
  for (int c = 0; c < kChains; ++c) acc[c] = f_set1(static_cast<float>(c));
  F x = f_set1(0.999f), y = f_set1(1e-3f);
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) acc[c] = f_fma(acc[c], x, y);
  }
  F total = f_zero();
  for (int c = 0; c < kChains; ++c) total = f_add(total, acc[c]);
  volatile float sink = f_sum(total);
  (void)sink;
  return 2.0 * W * kChains * static_cast<double>(iterations);
}

double peak_bf16(int64_t iterations) {
#if defined(__AVX512BF16__)
  alignas(64) uint16_t ones[2 * W];
  for (int i = 0; i < 2 * W; ++i) ones[i] = 0x3f80;
  const H w = h_load(ones);
  F acc[kChains];
  for (int c = 0; c < kChains; ++c) acc[c] = f_zero();
  P x = p_broadcast(ones);
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) acc[c] = f_dot2(acc[c], x, w);
  }
  F total = f_zero();
  for (int c = 0; c < kChains; ++c) total = f_add(total, acc[c]);
  volatile float sink = f_sum(total);
  (void)sink;
  return 4.0 * W * kChains * static_cast<double>(iterations);
#else
  return peak_f32(iterations);
#endif
}

double peak_int8(int64_t iterations) {
  alignas(64) uint8_t ones[64];
  for (int i = 0; i < 64; ++i) ones[i] = 1;
  const B w = b_load(ones);
  const X x = x_broadcast(ones);
  I acc[kChains];
  for (int c = 0; c < kChains; ++c) acc[c] = i_zero();
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) acc[c] = i_dot4(acc[c], x, w);
  }
  I total = i_zero();
  for (int c = 0; c < kChains; ++c) total = i_add(total, acc[c]);
  volatile float sink = f_sum(f_from_i(total));
  (void)sink;
  return 8.0 * W * kChains * static_cast<double>(iterations);
}

float read(const int32_t* x, int64_t n) {  // the largest, since a sum of anything would overflow
  I acc[8];
  for (int c = 0; c < 8; ++c) acc[c] = i_zero();
  for (int64_t i = 0; i + 8 * W <= n; i += 8 * W) {
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c) acc[c] = i_max(acc[c], i_load(x + i + c * W));
  }
  I total = i_zero();
  for (int c = 0; c < 8; ++c) total = i_max(total, acc[c]);
  return f_sum(f_from_i(total));
}

}  // namespace
}  // namespace kogata
