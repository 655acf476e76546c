// Matrix products over packed weights and packed activations, one tiling for every storage type.
//
// A tile is R rows x P panels of 16 columns. Every output element adds its products in order of K (int4 and grouped
// int8: exact integer sums within a group, then groups in order), whatever R and P are: that is the row contract.

namespace kogata {
namespace {

constexpr int V = 16 / W;  // vectors to a panel

// Fetches the same place in the next P panels into the second-level cache: `w` is where this tile reads, a step of 64
// bytes. A panel is a few pages long, too short for the processor to see the stream; the panels lie end to end.
template <int P>
inline void fetch_next(const void* w, int64_t panel_bytes) {
#pragma GCC unroll 2
  for (int j = 0; j < P; ++j) __builtin_prefetch(static_cast<const char*>(w) + (P + j) * panel_bytes, 0, 2);
}

// acc[r][:] += sum over k of x[k * x_step + r] * (row k of the panels), in order of k. kStream: the panels are weights.
template <int R, int P, bool kStream = false>
inline void multiply_f32(const float* x, int64_t x_step, const float* w, int64_t w_step, int64_t panel_stride,
                         int64_t depth, F (&acc)[R][P * V]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int j = 0; j < P * V; ++j) acc[r][j] = f_zero();
  }
  for (int64_t k = 0; k < depth; ++k) {
    if constexpr (kStream) fetch_next<P>(w + k * w_step, 4 * panel_stride);
    F column[P * V];
#pragma GCC unroll 16
    for (int j = 0; j < P * V; ++j) column[j] = f_load(w + (j / V) * panel_stride + k * w_step + (j % V) * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F value = f_set1(x[k * x_step + r]);
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) acc[r][j] = f_fma(value, column[j], acc[r][j]);
    }
  }
}

#if defined(__AVX512BF16__)
// The same over pairs of k: x[pair][r][2], panels [pair][16][2]; steps and strides count bf16 values.
template <int R, int P, bool kStream = false>
inline void multiply_bf16(const uint16_t* x, int64_t x_step, const uint16_t* w, int64_t w_step, int64_t panel_stride,
                          int64_t n_pairs, F (&acc)[R][P * V]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int j = 0; j < P * V; ++j) acc[r][j] = f_zero();
  }
  for (int64_t k = 0; k < n_pairs; ++k) {
    if constexpr (kStream) fetch_next<P>(w + k * w_step, 2 * panel_stride);
    H column[P * V];
#pragma GCC unroll 16
    for (int j = 0; j < P * V; ++j) column[j] = h_load(w + (j / V) * panel_stride + k * w_step + (j % V) * 2 * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const auto pair = p_broadcast(x + (k * x_step + 2 * r));
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) acc[r][j] = f_dot2(acc[r][j], pair, column[j]);
    }
  }
}
#endif

template <int R, int P>
inline void store_tile(const F (&acc)[R][P * V], float* out, int64_t step) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int j = 0; j < P * V; ++j) f_store(out + r * step + j * W, acc[r][j]);
  }
}

// The R rows of a tile are adjacent in the packed activations: [K/kk][tile_rows][kk].
template <int R, int P>
struct TileF32 {
  static void run(const LinearArgs& a, const void* x, int64_t, int64_t panel, float* out) {
    const int64_t stride = a.n_in_padded * kPanel;
    F acc[R][P * V];
    multiply_f32<R, P, true>(static_cast<const float*>(x), a.tile_rows,
                             static_cast<const float*>(a.weight) + panel * stride, kPanel, stride, a.n_in_padded, acc);
    store_tile<R, P>(acc, out, P * kPanel);
  }
};

#if defined(__AVX512BF16__)
template <int R, int P>
struct TileBf16 {
  static void run(const LinearArgs& a, const void* x, int64_t, int64_t panel, float* out) {
    const int64_t stride = a.n_in_padded * kPanel;
    F acc[R][P * V];
    multiply_bf16<R, P, true>(static_cast<const uint16_t*>(x), 2 * a.tile_rows,
                              static_cast<const uint16_t*>(a.weight) + panel * stride, 2 * kPanel, stride,
                              a.n_in_padded / 2, acc);
    store_tile<R, P>(acc, out, P * kPanel);
  }
};
#else
// No dot product: the weights are widened (exact) and the activations stay f32.
template <int R, int P>
struct TileBf16 {
  static void run(const LinearArgs& a, const void* x_tile, int64_t, int64_t panel, float* out) {
    const auto* x = static_cast<const float*>(x_tile);
    const int64_t depth = a.n_in_padded, stride = depth * kPanel;
    const auto* w = static_cast<const uint16_t*>(a.weight) + panel * stride;
    F acc[R][P * V];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) acc[r][j] = f_zero();
    }
    for (int64_t k = 0; k < depth; k += 2) {
      fetch_next<P>(w + k * kPanel, 2 * stride);
      F even[P * V], odd[P * V];
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) {
        f_widen_pairs(w + (j / V) * stride + k * kPanel + (j % V) * 2 * W, &even[j], &odd[j]);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const F first = f_set1(x[k * a.tile_rows + r]), second = f_set1(x[(k + 1) * a.tile_rows + r]);
#pragma GCC unroll 16
        for (int j = 0; j < P * V; ++j) acc[r][j] = f_fma(second, odd[j], f_fma(first, even[j], acc[r][j]));
      }
    }
    store_tile<R, P>(acc, out, P * kPanel);
  }
};
#endif

// int8 with one scale a row: out = x_scale * scale * (sum of q * code - zero * sum of codes), the bracket in int32.
template <int R, int P>
struct TileInt8 {
  static void run(const LinearArgs& a, const void* x_tile, int64_t row, int64_t panel, float* out) {
    const auto* x = static_cast<const uint8_t*>(x_tile);
    const int64_t depth = a.n_in_padded, stride = depth * kPanel;
    const auto* w = static_cast<const int8_t*>(a.weight) + panel * stride;
    I acc[R][P * V];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) acc[r][j] = i_zero();
    }
    for (int64_t k = 0; k < depth; k += 4) {
      fetch_next<P>(w + k * kPanel, stride);
      B column[P * V];
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) column[j] = b_load(w + (j / V) * stride + k * kPanel + (j % V) * 4 * W);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const X quad = x_broadcast(x + (k * a.tile_rows + 4 * r));
#pragma GCC unroll 16
        for (int j = 0; j < P * V; ++j) acc[r][j] = i_dot4(acc[r][j], quad, column[j]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const I zero = i_set1(kActivationOffset - a.x_zero[row + r]);
      const F scale = f_set1(a.x_scale[row + r]);
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) {
        const int64_t n = panel * kPanel + j * W;
        const I sum = i_add(acc[r][j], i_mul(zero, i_load(a.code_sums + n)));
        f_store(out + r * P * kPanel + j * W, f_mul(f_from_i(sum), f_mul(scale, f_load(a.scales + n))));
      }
    }
  }
};

// Scale groups along K, for int8 (kCodes = 4 bytes a column and step) and int4 (8 codes in 4 bytes).
template <int R, int P, bool kInt4>
struct TileGroups {
  static void run(const LinearArgs& a, const void* x_tile, int64_t row, int64_t panel, float* out) {
    const auto* x = static_cast<const uint8_t*>(x_tile);
    const int64_t depth = a.n_in_padded, n_groups = depth / a.group;
    const int64_t stride = depth * kPanel / (kInt4 ? 2 : 1);
    const auto* w = static_cast<const int8_t*>(a.weight) + panel * stride;
    const float* scales = a.scales + panel * n_groups * kPanel;
    F total[R][P * V];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) total[r][j] = f_zero();
    }
    for (int64_t g = 0; g < n_groups; ++g) {
      I acc[R][P * V];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int j = 0; j < P * V; ++j) acc[r][j] = i_zero();
      }
      for (int64_t k = g * a.group; k < (g + 1) * a.group; k += kInt4 ? 8 : 4) {
        fetch_next<P>(w + k * kPanel / (kInt4 ? 2 : 1), stride);
        B first[P * V];
        [[maybe_unused]] B second[P * V];
#pragma GCC unroll 16
        for (int j = 0; j < P * V; ++j) {
          if constexpr (kInt4) {
            b_load_codes(w + (j / V) * stride + k * kPanel / 2 + (j % V) * 4 * W, &first[j], &second[j]);
          } else {
            first[j] = b_load(w + (j / V) * stride + k * kPanel + (j % V) * 4 * W);
          }
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const X quad = x_broadcast(x + (k * a.tile_rows + 4 * r));
#pragma GCC unroll 16
          for (int j = 0; j < P * V; ++j) acc[r][j] = i_dot4(acc[r][j], quad, first[j]);
          if constexpr (kInt4) {
            const X next = x_broadcast(x + ((k + 4) * a.tile_rows + 4 * r));
#pragma GCC unroll 16
            for (int j = 0; j < P * V; ++j) acc[r][j] = i_dot4(acc[r][j], next, second[j]);
          }
        }
      }
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) {
        const F scale = f_load(scales + (j / V) * n_groups * kPanel + g * kPanel + (j % V) * W);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) total[r][j] = f_fma(f_from_i(acc[r][j]), scale, total[r][j]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F zero = f_set1(static_cast<float>(kActivationOffset - a.x_zero[row + r]));
      const F scale = f_set1(a.x_scale[row + r]);
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) {
        const F sums = f_load(a.sums + panel * kPanel + j * W);
        f_store(out + r * P * kPanel + j * W, f_mul(scale, f_fma(zero, sums, total[r][j])));
      }
    }
  }
};
template <int R, int P>
using TileInt8Groups = TileGroups<R, P, false>;
template <int R, int P>
using TileInt4 = TileGroups<R, P, true>;

// Ternary: codes w + 1 in 0..2 at two bits (kSteps = 4 steps of four inputs in four bytes of a column) or as digits to
// the base 3 (kSteps = 5). Sums are exact in int32, at most 256 K; sum of q * w = sum of q * code - sum of q. Where few
// rows leave few sums, the steps get one each: a chain of dot products is long.
template <int R, int P, int kSteps>
struct TileCodes {
  static void run(const LinearArgs& a, const void* x_tile, int64_t row, int64_t panel, float* out) {
    constexpr int kChains = R * P * V <= 4 ? kSteps : R * P * V <= 8 ? 2 : 1;
    const auto* x = static_cast<const int8_t*>(x_tile);
    const int64_t step = 4 * a.tile_rows, n_blocks = a.n_in_padded / (4 * kSteps);
    const int64_t n_groups = a.group == 0 ? 1 : a.n_in_padded / a.group, per_group = n_blocks / n_groups;
    const int64_t stride = n_blocks * kPanel * 4;
    const auto* w = static_cast<const uint8_t*>(a.weight) + panel * stride;
    for (int64_t g = 0; g < n_groups; ++g) {
      I acc[kChains][R][P * V];
#pragma GCC unroll 8
      for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
          for (int j = 0; j < P * V; ++j) acc[c][r][j] = i_zero();
        }
      }
      for (int64_t b = g * per_group; b < (g + 1) * per_group; ++b) {
        const int8_t* block = x + b * kSteps * step;
        fetch_next<P>(w + b * kPanel * 4, stride);
#pragma GCC unroll 16
        for (int j = 0; j < P * V; ++j) {
          B codes[kSteps];
          b_unpack<R>(w + (j / V) * stride + b * kPanel * 4 + (j % V) * 4 * W, codes);
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) {
            if constexpr (kChains == 1) {
              acc[0][r][j] = i_dot_codes(acc[0][r][j], codes, block + 4 * r, step);
            } else {
#pragma GCC unroll 8
              for (int s = 0; s < kSteps; ++s) {
                const B one[1] = {codes[s]};
                I& sum = acc[s % kChains][r][j];
                sum = i_dot_codes(sum, one, block + s * step + 4 * r, step);
              }
            }
          }
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const I offset = i_set1(a.x_zero[(row + r) * n_groups + g]);
        const F scale = f_set1(a.x_scale[row + r]);
#pragma GCC unroll 16
        for (int j = 0; j < P * V; ++j) {
          I sum = acc[0][r][j];
#pragma GCC unroll 8
          for (int c = 1; c < kChains; ++c) sum = i_add(sum, acc[c][r][j]);
          const F w_scale = f_load(a.scales + ((panel + j / V) * n_groups + g) * kPanel + (j % V) * W);
          float* to = out + r * P * kPanel + j * W;
          const F before = g == 0 ? f_zero() : f_load(to);
          F total = f_fma(f_from_i(i_sub(sum, offset)), w_scale, before);
          if (g + 1 == n_groups) total = f_mul(total, scale);
          f_store(to, total);
        }
      }
    }
  }
};
template <int R, int P>
using TileTernary = TileCodes<R, P, 4>;
template <int R, int P>
using TileTrits = TileCodes<R, P, 5>;

using TileFn = void (*)(const LinearArgs&, const void*, int64_t, int64_t, float*);

template <template <int, int> class Tile, int P, int Most, int R = 1>
inline TileFn tile_of(int rows) {
  if constexpr (R == Most) {
    return &Tile<R, P>::run;
  } else {
    return rows == R ? &Tile<R, P>::run : tile_of<Tile, P, Most, R + 1>(rows);
  }
}

// Bias, GELU and residual over a finished tile, which is still in the nearest cache.
inline void finish_tile(const LinearArgs& a, const float* tile, int rows, int columns, int64_t row, int64_t n0) {
  const int64_t n_end = n0 + columns < a.n_out ? n0 + columns : a.n_out;
  for (int r = 0; r < rows; ++r) {
    const float* source = tile + r * columns;
    const int64_t base = (row + r) * a.n_out;
    for (int64_t n = n0; n < n_end; n += W) {
      const bool whole = n + W <= n_end;
      const int rest = static_cast<int>(n_end - n);
      F value = f_load(source + (n - n0));
      if (a.bias != nullptr) value = f_add(value, whole ? f_load(a.bias + n) : f_load_n(a.bias + n, rest));
      if (a.gelu) value = f_gelu(value);
      if (a.residual != nullptr) {
        const float* residual = a.residual + base + n;
        value = f_add(value, whole ? f_load(residual) : f_load_n(residual, rest));
      }
      if (whole) {
        f_store(a.out + base + n, value);
      } else {
        f_store_n(a.out + base + n, value, rest);
      }
    }
  }
}

constexpr int64_t kFewRows = 8;

// `unit`: bytes of one row's step in the packed activations; `kk`: inputs to a step.
template <template <int, int> class Tile, int Most>
inline void linear_range(const LinearArgs& a, int unit, int kk, int64_t begin, int64_t end, int64_t panel_begin,
                         int64_t panel_end) {
  alignas(64) float tile[Most * kPanels * kPanel];
  const int64_t tile_bytes = a.n_in_padded / kk * a.tile_rows * unit;
  for (int64_t panel = panel_begin; panel < panel_end;) {
    // With few rows there are registers enough for sums without a second panel, and one panel at a time is one stream.
    const bool pair = kPanels == 2 && panel + 2 <= panel_end && a.tile_rows > kFewRows;
    const int columns = static_cast<int>(pair ? 2 * kPanel : kPanel);
    for (int64_t t = begin; t < end; ++t) {
      const char* x = static_cast<const char*>(a.x) + t * tile_bytes;
      const int64_t left = a.n_rows - t * a.tile_rows;
      const int rows = static_cast<int>(left < a.tile_rows ? left : a.tile_rows);
      for (int r = 0; r < rows; r += Most) {
        const int some = rows - r < Most ? rows - r : Most;
        const int64_t row = t * a.tile_rows + r;
        const TileFn run = pair ? tile_of<Tile, kPanels, Most>(some) : tile_of<Tile, 1, Most>(some);
        run(a, x + r * unit, row, panel, tile);
        finish_tile(a, tile, some, columns, row, panel * kPanel);
      }
    }
    panel += pair ? 2 : 1;
  }
}

void linear_f32(const LinearArgs& a, int64_t begin, int64_t end, int64_t panel_begin, int64_t panel_end) {
  linear_range<TileF32, kRowTile>(a, 4, 1, begin, end, panel_begin, panel_end);
}

void linear_bf16(const LinearArgs& a, int64_t begin, int64_t end, int64_t panel_begin, int64_t panel_end) {
  linear_range<TileBf16, kRowTile>(a, 4, kBf16Dot ? 2 : 1, begin, end, panel_begin, panel_end);
}

void linear_int8(const LinearArgs& a, int64_t begin, int64_t end, int64_t panel_begin, int64_t panel_end) {
  if (a.group == 0) {
    linear_range<TileInt8, kInt8Rows>(a, 4, 4, begin, end, panel_begin, panel_end);
  } else {
    linear_range<TileInt8Groups, kGroupRows>(a, 4, 4, begin, end, panel_begin, panel_end);
  }
}

void linear_int4(const LinearArgs& a, int64_t begin, int64_t end, int64_t panel_begin, int64_t panel_end) {
  linear_range<TileInt4, kGroupRows>(a, 4, 4, begin, end, panel_begin, panel_end);
}

void linear_ternary(const LinearArgs& a, int64_t begin, int64_t end, int64_t panel_begin, int64_t panel_end) {
  linear_range<TileTernary, kRowTile>(a, 4, 4, begin, end, panel_begin, panel_end);
}

void linear_trits(const LinearArgs& a, int64_t begin, int64_t end, int64_t panel_begin, int64_t panel_end) {
  linear_range<TileTrits, kRowTile>(a, 4, 4, begin, end, panel_begin, panel_end);
}

// ---- packing the activations ------------------------------------------------------------------------------------

inline uint16_t round_bf16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);  // NaN stays NaN
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// A row after its gated unit and its norm: x / sqrt(mean of squares + eps) * gain; in `scratch`, or where it was.
inline const float* prepared(const PackRowsArgs& a, int64_t row, float* scratch) {
  const int64_t k = a.n_in;
  const float* x = a.x + row * (a.glu == Glu::none ? k : 2 * k);
  if (a.glu != Glu::none) {
    for (int64_t i = 0; i < k; i += W) {
      const int rest = static_cast<int>(k - i);
      if (rest >= W) {
        f_store(scratch + i, f_gated(a.glu, f_load(x + i), f_load(x + k + i)));
      } else {
        f_store_n(scratch + i, f_gated(a.glu, f_load_n(x + i, rest), f_load_n(x + k + i, rest)), rest);
      }
    }
    x = scratch;
  }
  if (a.gain == nullptr) return x;
  rms_norm_row(x, a.gain, a.eps, k, nullptr, scratch);
  return scratch;
}

template <class Row>
inline void each_row(const PackRowsArgs& a, int64_t begin, int64_t end, float* scratch, Row&& row) {
  for (int64_t t = begin; t < end; ++t) {
    const int64_t left = a.n_rows - t * a.tile_rows;
    const int64_t rows = left < a.tile_rows ? left : a.tile_rows;
    for (int64_t r = 0; r < rows; ++r) row(t, r, prepared(a, t * a.tile_rows + r, scratch));
  }
}

void pack_rows_f32(const PackRowsArgs& a, int64_t begin, int64_t end, float* scratch) {
  each_row(a, begin, end, scratch, [&](int64_t t, int64_t r, const float* x) {
    float* tile = static_cast<float*>(a.packed) + t * a.n_in_padded * a.tile_rows + r;
    for (int64_t k = 0; k < a.n_in; ++k) tile[k * a.tile_rows] = x[k];
    for (int64_t k = a.n_in; k < a.n_in_padded; ++k) tile[k * a.tile_rows] = 0.0f;
  });
}

void pack_rows_bf16(const PackRowsArgs& a, int64_t begin, int64_t end, float* scratch) {
  if constexpr (!kBf16Dot) return pack_rows_f32(a, begin, end, scratch);
  each_row(a, begin, end, scratch, [&](int64_t t, int64_t r, const float* x) {
    auto* tile = static_cast<uint32_t*>(a.packed) + t * (a.n_in_padded / 2) * a.tile_rows + r;
    for (int64_t k = 0; k < a.n_in_padded; k += 2) {
      const uint32_t low = k < a.n_in ? round_bf16(x[k]) : 0u, high = k + 1 < a.n_in ? round_bf16(x[k + 1]) : 0u;
      tile[k / 2 * a.tile_rows] = low | (high << 16);
    }
  });
}

// Per row: the smallest scale and integer zero point that map [min(x, 0), max(x, 0)] onto 0..255, so that 0 is exact.
// A row with a NaN or an infinity gets a NaN scale: its outputs are NaN, and nobody else's.
void pack_rows_int8(const PackRowsArgs& a, int64_t begin, int64_t end, float* scratch) {
  alignas(64) uint8_t bytes[W > 16 ? W : 16];
  each_row(a, begin, end, scratch, [&](int64_t t, int64_t r, const float* x) {
    auto* tile = static_cast<uint8_t*>(a.packed) + t * a.n_in_padded * a.tile_rows;
    const int64_t row = t * a.tile_rows + r;
    const int64_t whole = a.n_in / W * W;
    const int rest = static_cast<int>(a.n_in - whole);
    F low = f_zero(), high = f_zero(), finite = f_zero();
    for (int64_t k = 0; k < whole; k += W) {
      const F v = f_load(x + k);
      low = f_min(low, v);
      high = f_max(high, v);
      finite = f_fma(v, f_zero(), finite);
    }
    if (rest) {
      const F v = f_load_n(x + whole, rest);
      low = f_min(low, v);
      high = f_max(high, v);
      finite = f_fma(v, f_zero(), finite);
    }
    const float lowest = f_hmin(low), range = f_hmax(high) - lowest, poison = f_sum(finite);
    const float scale = range / 255.0f;
    // A subnormal range would make the inverse infinite; such a row is zero for every purpose.
    const bool usable = poison == 0.0f && scale > 1e-37f && range < 3.0e38f;
    const F inverse = f_set1(usable ? 1.0f / scale : 0.0f);
    const I zero = i_round(f_mul(f_set1(usable ? -lowest : 0.0f), inverse));
    alignas(64) float zero_lanes[W];
    f_store(zero_lanes, f_from_i(zero));
    a.zero[row] = static_cast<int32_t>(zero_lanes[0]);
    a.scale[row] = poison == 0.0f && range < 3.0e38f ? scale : __builtin_nanf("");
    for (int64_t k = 0; k < a.n_in_padded; k += W) {
      const int64_t n = a.n_in - k;
      const F v = n >= W ? f_load(x + k) : f_load_n(x + k, n > 0 ? static_cast<int>(n) : 0);
      const I q = i_add(i_round(f_mul(usable ? v : f_zero(), inverse)), zero);
      store_u8(bytes, i_min(i_max(q, i_zero()), i_set1(255)));
      for (int64_t i = 0; i < W && k + i < a.n_in_padded; i += 4) {
        uint32_t quad;
        __builtin_memcpy(&quad, bytes + i, 4);
        if constexpr (kActivationOffset == 128) quad ^= 0x80808080u;
        __builtin_memcpy(tile + ((k + i) * a.tile_rows + 4 * r), &quad, 4);
      }
    }
  });
}

// BitNet's rule: s = 127 / max(max |x|, 1e-5), q = rint(x * s) within -128..127, half to even. A row with a NaN or an
// infinity gets a NaN scale, as above.
void pack_rows_ternary(const PackRowsArgs& a, int64_t begin, int64_t end, float* scratch) {
  const int64_t n_groups = a.group == 0 ? 1 : a.n_in_padded / a.group, group = a.group == 0 ? a.n_in_padded : a.group;
  each_row(a, begin, end, scratch, [&](int64_t t, int64_t r, const float* x) {
    auto* tile = static_cast<int8_t*>(a.packed) + t * a.n_in_padded * a.tile_rows;
    const int64_t row = t * a.tile_rows + r;
    F largest = f_zero(), finite = f_zero();
    for (int64_t k = 0; k < a.n_in; k += W) {
      const int64_t rest = a.n_in - k;
      const F v = rest >= W ? f_load(x + k) : f_load_n(x + k, static_cast<int>(rest));
      largest = f_max(largest, f_max(v, f_sub(f_zero(), v)));
      finite = f_fma(v, f_zero(), finite);
    }
    const float top = f_hmax(largest);
    const bool usable = f_sum(finite) == 0.0f;
    const float s = usable ? 127.0f / (top > 1e-5f ? top : 1e-5f) : 0.0f;
    a.scale[row] = usable ? 1.0f / s : __builtin_nanf("");
    alignas(64) uint8_t bytes[W > 16 ? W : 16];
    for (int64_t g = 0; g < n_groups; ++g) {
      I sum = i_zero();
      for (int64_t k = g * group; k < (g + 1) * group; k += W) {
        const int64_t rest = a.n_in - k, inside = (g + 1) * group - k;
        const int64_t n = rest < inside ? rest : inside;  // a group need not be whole vectors
        const F v = n >= W ? f_load(x + k) : f_load_n(x + k, n > 0 ? static_cast<int>(n) : 0);
        const I q = i_min(i_max(i_round(f_mul(usable ? v : f_zero(), f_set1(s))), i_set1(-128)), i_set1(127));
        sum = i_add(sum, q);
        store_u8(bytes, i_add(q, i_set1(128)));
        for (int64_t i = 0; i < W && i < inside; i += 4) {
          uint32_t quad;
          __builtin_memcpy(&quad, bytes + i, 4);
          quad ^= 0x80808080u;
          __builtin_memcpy(tile + ((k + i) * a.tile_rows + 4 * r), &quad, 4);
        }
      }
      a.zero[row * n_groups + g] = i_sum(sum);
    }
  });
}

}  // namespace
}  // namespace kogata
