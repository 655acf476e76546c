// Bidirectional attention of one head over one packed sequence.
//
// Queries go in the lanes of S^T = K Q^T [L, kQueries], so the softmax over keys needs no sum across lanes; then
// O = P V reads P^T by broadcast and V [L, d] by vectors, and comes out in the layout of the output. Every query's sums
// run over the keys in order, wherever the query sits: the row contract.

namespace kogata {
namespace {

constexpr int kQueries = kPanels * static_cast<int>(kPanel);

struct AttendScratch {
  float* query;    // [d, kQueries], scaled by 1 / sqrt(d)
  float* keys;     // [L / kRowTile][d][kRowTile]
  float* values;   // [L, d padded to 16]
  float* weights;  // [L, kQueries]
};

template <int R>
inline void score_keys(const float* keys, const float* query, int64_t depth, float* out) {
  F acc[R][kPanels * V];
  multiply_f32<R, kPanels>(keys, kRowTile, query, kQueries, kPanel, depth, acc);
  store_tile<R, kPanels>(acc, out, kQueries);
}

template <int R, int P>
inline void mix_values(const float* weights, const float* values, int64_t step, int64_t n_keys, float* out) {
  F acc[R][P * V];
  multiply_f32<R, P>(weights, kQueries, values, step, kPanel, n_keys, acc);
  store_tile<R, P>(acc, out, P * kPanel);
}

using ScoreFn = void (*)(const float*, const float*, int64_t, float*);
using MixFn = void (*)(const float*, const float*, int64_t, int64_t, float*);

template <int R = 1>
inline ScoreFn score_of(int rows) {
  if constexpr (R == kRowTile) {
    return &score_keys<R>;
  } else {
    return rows == R ? &score_keys<R> : score_of<R + 1>(rows);
  }
}

template <int P, int R = 1>
inline MixFn mix_of(int rows) {
  if constexpr (R == kRowTile) {
    return &mix_values<R, P>;
  } else {
    return rows == R ? &mix_values<R, P> : mix_of<P, R + 1>(rows);
  }
}

// exp(s - max) in place; leaves each query's maximum and sum.
inline void softmax_columns(float* weights, int64_t n_keys, float* largest, float* sums) {
  for (int lane = 0; lane < kQueries; lane += W) {
    F top = f_load(weights + lane);
    for (int64_t k = 1; k < n_keys; ++k) top = f_max(top, f_load(weights + k * kQueries + lane));
    F sum = f_zero();
    for (int64_t k = 0; k < n_keys; ++k) {
      float* w = weights + k * kQueries + lane;
      const F e = f_exp(f_sub(f_load(w), top));
      sum = f_add(sum, e);
      f_store(w, e);
    }
    f_store(largest + lane, top);
    f_store(sums + lane, sum);
  }
}

void attend(const AttendArgs& a, int64_t first, int64_t length, int64_t head, int64_t begin, int64_t end,
            void* scratch) {
  const int64_t d = a.head_dim, width = a.n_heads * d, row_step = 3 * width;
  const int64_t d_padded = (d + kPanel - 1) / kPanel * kPanel;
  const int64_t key_tiles = (length + kRowTile - 1) / kRowTile;
  AttendScratch s;
  s.query = static_cast<float*>(scratch);
  s.keys = s.query + d * kQueries;
  s.values = s.keys + key_tiles * kRowTile * d;
  s.weights = s.values + length * d_padded;
  const float* base = a.qkv + first * row_step + head * d;

  for (int64_t key = 0; key < length; ++key) {
    const float* k = base + key * row_step + width;
    float* tile = s.keys + key / kRowTile * kRowTile * d + key % kRowTile;
    for (int64_t i = 0; i < d; ++i) tile[i * kRowTile] = k[i];
    const float* v = k + width;
    float* value = s.values + key * d_padded;
    for (int64_t i = 0; i < d; ++i) value[i] = v[i];
    for (int64_t i = d; i < d_padded; ++i) value[i] = 0.0f;
  }

  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(d));
  alignas(64) float largest[kQueries], sums[kQueries], tile[kRowTile * kPanels * kPanel];
  for (int64_t q0 = begin; q0 < end; q0 += kQueries) {
    const int n_queries = static_cast<int>(end - q0 < kQueries ? end - q0 : kQueries);
    for (int q = 0; q < n_queries; ++q) {
      const float* source = base + (q0 + q) * row_step;
      for (int64_t i = 0; i < d; ++i) s.query[i * kQueries + q] = source[i] * scale;
    }
    for (int q = n_queries; q < kQueries; ++q) {
      for (int64_t i = 0; i < d; ++i) s.query[i * kQueries + q] = 0.0f;
    }
    for (int64_t t = 0; t < key_tiles; ++t) {
      const int64_t left = length - t * kRowTile;
      const int rows = static_cast<int>(left < kRowTile ? left : kRowTile);
      score_of(rows)(s.keys + t * kRowTile * d, s.query, d, s.weights + t * kRowTile * kQueries);
    }
    softmax_columns(s.weights, length, largest, sums);
    for (int q = 0; q < n_queries; q += kRowTile) {
      const int rows = n_queries - q < kRowTile ? n_queries - q : kRowTile;
      for (int64_t c = 0; c < d_padded;) {
        const bool pair = kPanels == 2 && c + 2 * kPanel <= d_padded;
        const int64_t columns = pair ? 2 * kPanel : kPanel;
        (pair ? mix_of<kPanels>(rows) : mix_of<1>(rows))(s.weights + q, s.values + c, d_padded, length, tile);
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

}  // namespace
}  // namespace kogata
