// Bidirectional attention of one head over one packed sequence.
//
// Queries go in the lanes of S^T = K Q^T [L, kQueries], so the softmax over keys needs no sum across lanes; then
// O = P V reads P^T by broadcast and V [L, d] by vectors, and comes out in the layout of the output. Every query's sums
// run over the keys in order, wherever the query sits: the row contract.
//
// Both products run in f32, or where asked and there in bf16: then a cell of 4 bytes holds two neighbours along the sum.

namespace kogata {
namespace {

constexpr int kQueries = kPanels * static_cast<int>(kPanel);

struct F32Cells {
  using Cell = float;
  static constexpr int kTerms = 1;  // of the sum, in a cell
  template <int R, int P>
  static void multiply(const Cell* x, int64_t x_step, const Cell* w, int64_t w_step, int64_t steps,
                       F (&acc)[R][P * V]) {
    multiply_f32<R, P>(x, x_step, w, w_step, kPanel, steps, acc);
  }
  // x * scale down a column of cells.
  static void pack_column(const float* x, int64_t d, float scale, Cell* out, int64_t step) {
    for (int64_t i = 0; i < d; ++i) out[i * step] = x[i] * scale;
  }
  static void store(Cell* out, F first, F) { f_store(out, first); }
};

#if defined(__AVX512BF16__)
struct Bf16Cells {
  using Cell = uint32_t;
  static constexpr int kTerms = 2;
  template <int R, int P>
  static void multiply(const Cell* x, int64_t x_step, const Cell* w, int64_t w_step, int64_t steps,
                       F (&acc)[R][P * V]) {
    multiply_bf16<R, P>(reinterpret_cast<const uint16_t*>(x), 2 * x_step, reinterpret_cast<const uint16_t*>(w),
                        2 * w_step, 2 * kPanel, steps, acc);
  }
  static void pack_column(const float* x, int64_t d, float scale, Cell* out, int64_t step) {
    alignas(64) Cell pairs[W / 2];
    for (int64_t i = 0; i < d; i += W) {
      const F values = d - i >= W ? f_load(x + i) : f_load_n(x + i, static_cast<int>(d - i));
      h_round(pairs, f_mul(values, f_set1(scale)));
      for (int64_t j = 0; j < W / 2 && i + 2 * j < d; ++j) out[(i / 2 + j) * step] = pairs[j];
    }
  }
  static void store(Cell* out, F first, F second) { h_store(out, h_pair(first, second)); }
};
#endif

template <class Cells, int P, int R>
inline void score_keys(const typename Cells::Cell* keys, const typename Cells::Cell* query, int64_t depth, float* out) {
  F acc[R][P * V];
  Cells::template multiply<R, P>(keys, kRowTile, query, kQueries, depth, acc);
  store_tile<R, P>(acc, out, kQueries);
}

template <class Cells, int P, int R>
inline void mix_values(const typename Cells::Cell* weights, const typename Cells::Cell* values, int64_t step,
                       int64_t steps, float* out) {
  F acc[R][P * V];
  Cells::template multiply<R, P>(weights, kQueries, values, step, steps, acc);
  store_tile<R, P>(acc, out, P * kPanel);
}

template <class Cells, int P, int R = 1>
inline auto score_of(int rows) {
  if constexpr (R == kRowTile) {
    return &score_keys<Cells, P, R>;
  } else {
    return rows == R ? &score_keys<Cells, P, R> : score_of<Cells, P, R + 1>(rows);
  }
}

template <class Cells, int P, int R = 1>
inline auto mix_of(int rows) {
  if constexpr (R == kRowTile) {
    return &mix_values<Cells, P, R>;
  } else {
    return rows == R ? &mix_values<Cells, P, R> : mix_of<Cells, P, R + 1>(rows);
  }
}

// exp(s - max) over scores [L, kQueries], as cells into the same memory; leaves each query's maximum and sum.
template <class Cells>
inline void softmax_columns(const float* scores, typename Cells::Cell* weights, int64_t n_keys, int n_queries,
                            float* largest, float* sums) {
  for (int lane = 0; lane < n_queries; lane += W) {
    const float* s = scores + lane;
    F tops[4];  // a chain of its own each, for the sake of latency
    for (F& top : tops) top = f_load(s);
    int64_t key = 1;
    for (; key + 4 <= n_keys; key += 4) {
      for (int j = 0; j < 4; ++j) tops[j] = f_max(tops[j], f_load(s + (key + j) * kQueries));
    }
    for (; key < n_keys; ++key) tops[0] = f_max(tops[0], f_load(s + key * kQueries));
    const F top = f_max(f_max(tops[0], tops[1]), f_max(tops[2], tops[3]));
    F sum = f_zero();
    for (int64_t k = 0; k < n_keys; k += Cells::kTerms) {
      F first = f_exp(f_sub(f_load(s + k * kQueries), top)), second = f_zero();
      sum = f_add(sum, first);
      if (Cells::kTerms == 2 && k + 1 < n_keys) {
        second = f_exp(f_sub(f_load(s + (k + 1) * kQueries), top));
        sum = f_add(sum, second);
      }
      Cells::store(weights + k / Cells::kTerms * kQueries + lane, first, second);
    }
    f_store(largest + lane, top);
    f_store(sums + lane, sum);
  }
}

template <class Cells>
void attend_in(const AttendArgs& a, int64_t first, int64_t length, int64_t head, int64_t begin, int64_t end,
               void* scratch) {
  using Cell = typename Cells::Cell;
  constexpr int kTerms = Cells::kTerms;
  const int64_t d = a.head_dim, width = a.n_heads * d, row_step = 3 * width;
  const int64_t d_padded = (d + kPanel - 1) / kPanel * kPanel, depth = (d + kTerms - 1) / kTerms;
  const int64_t key_tiles = (length + kRowTile - 1) / kRowTile, key_steps = (length + kTerms - 1) / kTerms;
  Cell* query = static_cast<Cell*>(scratch);               // [depth, kQueries], scaled by 1 / sqrt(d)
  Cell* keys = query + depth * kQueries;                   // [key_tiles][depth][kRowTile]
  Cell* values = keys + key_tiles * kRowTile * depth;      // [key_steps, d padded to 16]
  Cell* weights = values + key_steps * d_padded;           // [key_steps, kQueries], before that the scores
  float* scores = reinterpret_cast<float*>(weights);       // [L, kQueries]
  const float* base = a.qkv + first * row_step + head * d;

  for (int64_t key = 0; key < length; ++key) {
    Cell* tile = keys + key / kRowTile * kRowTile * depth + key % kRowTile;
    Cells::pack_column(base + key * row_step + width, d, 1.0f, tile, kRowTile);
  }
  for (int64_t key = 0; key < length; key += kTerms) {
    const float* v = base + key * row_step + 2 * width;
    for (int64_t i = 0; i < d_padded; i += W) {
      const int n = static_cast<int>(d - i < 0 ? 0 : d - i < W ? d - i : W);
      const bool two = kTerms == 2 && key + 1 < length;
      Cells::store(values + key / kTerms * d_padded + i, f_load_n(v + i, n),
                   two ? f_load_n(v + row_step + i, n) : f_zero());
    }
  }

  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(d));
  alignas(64) float largest[kQueries], sums[kQueries], tile[kRowTile * kPanels * kPanel];
  for (int64_t i = 0; i < depth * kQueries; ++i) query[i] = 0;
  for (int64_t q0 = begin; q0 < end; q0 += kQueries) {
    const int n_queries = static_cast<int>(end - q0 < kQueries ? end - q0 : kQueries);
    // Lanes beyond n_queries keep what was there before; nobody reads their results.
    for (int q = 0; q < n_queries; ++q) Cells::pack_column(base + (q0 + q) * row_step, d, scale, query + q, kQueries);
    for (int64_t t = 0; t < key_tiles; ++t) {
      const int64_t left = length - t * kRowTile;
      const int rows = static_cast<int>(left < kRowTile ? left : kRowTile);
      (n_queries <= kPanel ? score_of<Cells, 1>(rows) : score_of<Cells, kPanels>(rows))(
          keys + t * kRowTile * depth, query, depth, scores + t * kRowTile * kQueries);
    }
    softmax_columns<Cells>(scores, weights, length, n_queries, largest, sums);
    for (int q = 0; q < n_queries; q += kRowTile) {
      const int rows = n_queries - q < kRowTile ? n_queries - q : kRowTile;
      for (int64_t c = 0; c < d_padded;) {
        const bool pair = kPanels == 2 && c + 2 * kPanel <= d_padded;
        const int64_t columns = pair ? 2 * kPanel : kPanel;
        (pair ? mix_of<Cells, kPanels>(rows) : mix_of<Cells, 1>(rows))(weights + q, values + c, d_padded, key_steps, tile);
        const int64_t n = d - c < columns ? d - c : columns;
        for (int r = 0; r < rows; ++r) {
          float* out = a.out + (first + q0 + q + r) * width + head * d + c;
          const float inverse = 1.0f / sums[q + r];
          for (int64_t i = 0; i < n; ++i) out[i] = tile[r * columns + i] * inverse;
        }
        c += columns;
      }
    }
    if (a.lse == nullptr) continue;
    for (int q = 0; q < n_queries; ++q) {
      a.lse[(first + q0 + q) * a.n_heads + head] = largest[q] + __builtin_logf(sums[q]);
    }
  }
}

void attend(const AttendArgs& a, int64_t first, int64_t length, int64_t head, int64_t begin, int64_t end,
            void* scratch) {
#if defined(__AVX512BF16__)
  if (a.reduced) return attend_in<Bf16Cells>(a, first, length, head, begin, end, scratch);
#endif
  attend_in<F32Cells>(a, first, length, head, begin, end, scratch);
}

}  // namespace
}  // namespace kogata
