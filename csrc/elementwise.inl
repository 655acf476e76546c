// Layer norm, embedding rows, pooling. One row at a time, so that a row never depends on its neighbours.

namespace kogata {
namespace {

// Layer norm of `sum` in place into out: mean and variance over the width, in two passes.
inline void norm_row(const float* sum, const float* gain, const float* bias, float* out, int64_t width, float eps) {
  const int64_t whole = width / W * W;
  const int rest = static_cast<int>(width - whole);
  F total = f_zero();
  for (int64_t i = 0; i < whole; i += W) total = f_add(total, f_load(sum + i));
  if (rest) total = f_add(total, f_load_n(sum + whole, rest));
  const float mean = f_sum(total) / static_cast<float>(width);
  const F mean_v = f_set1(mean);
  F squares = f_zero();
  for (int64_t i = 0; i < whole; i += W) {
    const F d = f_sub(f_load(sum + i), mean_v);
    squares = f_fma(d, d, squares);
  }
  float variance = f_sum(squares);
  for (int64_t i = whole; i < width; ++i) variance += (sum[i] - mean) * (sum[i] - mean);
  const F inverse = f_set1(1.0f / __builtin_sqrtf(variance / static_cast<float>(width) + eps));
  for (int64_t i = 0; i < whole; i += W) {
    const F d = f_mul(f_sub(f_load(sum + i), mean_v), inverse);
    f_store(out + i, f_fma(d, f_load(gain + i), f_load(bias + i)));
  }
  if (rest) {
    const F d = f_mul(f_sub(f_load_n(sum + whole, rest), mean_v), inverse);
    f_store_n(out + whole, f_fma(d, f_load_n(gain + whole, rest), f_load_n(bias + whole, rest)), rest);
  }
}

// x / sqrt(mean of squares + eps) * gain, and the residual added if there is one; out may be either.
inline void rms_norm_row(const float* x, const float* gain, float eps, int64_t width, const float* residual, float* out) {
  const int64_t whole = width / W * W;
  const int rest = static_cast<int>(width - whole);
  F squares = f_zero();
  for (int64_t i = 0; i < whole; i += W) {
    const F v = f_load(x + i);
    squares = f_fma(v, v, squares);
  }
  if (rest) {
    const F v = f_load_n(x + whole, rest);
    squares = f_fma(v, v, squares);
  }
  const F inverse = f_set1(1.0f / __builtin_sqrtf(f_sum(squares) / static_cast<float>(width) + eps));
  for (int64_t i = 0; i < width; i += W) {
    const bool full = i < whole;
    F v = f_mul(f_mul(full ? f_load(x + i) : f_load_n(x + i, rest), inverse),
                full ? f_load(gain + i) : f_load_n(gain + i, rest));
    if (residual != nullptr) v = f_add(v, full ? f_load(residual + i) : f_load_n(residual + i, rest));
    if (full) {
      f_store(out + i, v);
    } else {
      f_store_n(out + i, v, rest);
    }
  }
}

inline void add_row(float* out, const float* a, const float* b, int64_t width) {
  int64_t i = 0;
  for (; i + W <= width; i += W) f_store(out + i, f_add(f_load(a + i), f_load(b + i)));
  for (; i < width; ++i) out[i] = a[i] + b[i];
}

void layer_norm(const NormArgs& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = a.x + row * a.width;
    float* out = a.out + row * a.width;
    if (a.residual != nullptr) {
      add_row(out, x, a.residual + row * a.width, a.width);
      x = out;
    }
    norm_row(x, a.gain, a.bias, out, a.width, a.eps);
  }
}

void rms_norm(const NormArgs& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* residual = a.residual == nullptr ? nullptr : a.residual + row * a.width;
    rms_norm_row(a.x + row * a.width, a.gain, a.eps, a.width, residual, a.out + row * a.width);
  }
}

void embed(const EmbedArgs& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    float* out = a.out + row * a.width;
    const float* position = a.position + static_cast<int64_t>(a.positions[row]) * a.width;
    if (a.word != nullptr) {
      add_row(out, a.word + static_cast<int64_t>(a.ids[row]) * a.width, position, a.width);
    } else {
      const int64_t first = static_cast<int64_t>(a.ids[row]) * (a.width / 32);
      for (int64_t block = 0; block < a.width / 32; ++block) {
        uint16_t half;
        __builtin_memcpy(&half, a.scales + (first + block) * a.scale_stride, 2);
        const float scale = widen_f16(half);
        const uint8_t* codes = a.codes + (first + block) * a.code_stride;
        float* o = out + block * 32;
        for (int j = 0; j < 16; ++j) {
          o[j] = static_cast<float>((codes[j] & 15) - 8) * scale;
          o[j + 16] = static_cast<float>((codes[j] >> 4) - 8) * scale;
        }
      }
      add_row(out, out, position, a.width);
    }
    if (a.type != nullptr) {
      const int64_t type = a.types != nullptr ? a.types[row] : 0;
      add_row(out, out, a.type + type * a.width, a.width);
    }
    norm_row(out, a.gain, a.bias, out, a.width, a.eps);
  }
}

void pool(const PoolArgs& a, int64_t begin, int64_t end) {
  for (int64_t s = begin; s < end; ++s) {
    float* out = a.out + s * a.width;
    const int64_t first = a.cu_seqlens[s], last = a.cu_seqlens[s + 1];
    const int64_t stop = a.first_token && first < last ? first + 1 : last;
    const float share = stop > first ? 1.0f / static_cast<float>(stop - first) : 0.0f;
    float norm = 0.0f;
    F squares = f_zero();
    int64_t i = 0;
    for (; i + W <= a.width; i += W) {
      F total = f_zero();
      for (int64_t t = first; t < stop; ++t) total = f_add(total, f_load(a.hidden + t * a.width + i));
      total = f_mul(total, f_set1(share));
      squares = f_fma(total, total, squares);
      f_store(out + i, total);
    }
    norm = f_sum(squares);
    for (; i < a.width; ++i) {
      float total = 0.0f;
      for (int64_t t = first; t < stop; ++t) total += a.hidden[t * a.width + i];
      out[i] = total * share;
      norm += out[i] * out[i];
    }
    if (!a.normalise) continue;
    norm = __builtin_sqrtf(norm);
    const float inverse = 1.0f / (norm > 1e-12f ? norm : 1e-12f);
    for (i = 0; i < a.width; ++i) out[i] *= inverse;
  }
}

}  // namespace
}  // namespace kogata
