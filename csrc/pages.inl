// Attention over a cache of pages of 64 keys (the layout is in kernels.h), with an online softmax page by page.
//
// A tile is R entries (query row x head of a group) x one page: keys lie in the lanes of the scores, columns of the
// head in the lanes of the result, and queries and weights are broadcast. Keys and values are read once for all entries
// of a block. An entry's arithmetic never depends on the tile it sits in: sums run over the head, then over the keys of
// a page, then over pages in order; a masked key has weight 0 exactly, a page without a visible key changes nothing,
// and every 16 pages start a part of their own that is then added to those before it: the row contract.
//
// Scores are in units of ln 2, so that weights are powers of 2. A page's weights are relative to its own largest score,
// and its sums are brought onto the running largest only when they are added.

namespace kogata {
namespace {

constexpr int kKeys = static_cast<int>(kPageKeys);
constexpr int64_t kKeyStep = 4 * kPageKeys;  // bytes from one row of cells of K to the next
constexpr int kMostDim = 256;
constexpr float kNothing = -__builtin_inff();

// 2^x for x <= 0, to 2e-7; exactly 1 at 0, exactly 0 from -126 down. Coefficients: our own minimax fit.
inline F f_exp2(F x) {
  x = f_max(x, f_set1(-126.0f));
  const F magic = f_set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const F n = f_sub(f_add(x, magic), magic), r = f_sub(x, n);
  F p = f_set1(0.00132647273f);
  p = f_fma(p, r, f_set1(0.00967151299f));
  p = f_fma(p, r, f_set1(0.0555073358f));
  p = f_fma(p, r, f_set1(0.240222424f));
  p = f_fma(p, r, f_set1(0.693147004f));
  p = f_fma(p, r, f_set1(1.0f));
  return f_sub(f_mul(p, f_pow2(n)), f_set1(1.17549435e-38f));
}

inline float exp2_one(float x) {
  alignas(64) float lanes[W];
  f_store(lanes, f_exp2(f_set1(x)));
  return lanes[0];
}

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

inline int64_t padded_dim(int64_t d) { return (d + kPanel - 1) / kPanel * kPanel; }

// Codes of d values, half to even, so that x = scale * code; returns the scale. `codes` has room for whole vectors.
inline float quantise(const float* x, int64_t d, int32_t* codes) {
  F top = f_zero();
  for (int64_t i = 0; i < d; i += W) {
    const F v = d - i >= W ? f_load(x + i) : f_load_n(x + i, static_cast<int>(d - i));
    top = f_max(top, f_max(v, f_sub(f_zero(), v)));
  }
  const float scale = f_hmax(top) / 127.0f;
  const F inverse = f_set1(scale > 1e-37f ? 1.0f / scale : 0.0f);  // of a subnormal scale it would be infinite
  for (int64_t i = 0; i < d; i += W) {
    const F v = d - i >= W ? f_load(x + i) : f_load_n(x + i, static_cast<int>(d - i));
    i_store(codes + i, i_round(f_mul(v, inverse)));
  }
  return scale;
}

// ---- writing ----------------------------------------------------------------------------------------------------

// The RMS norm of one head where there is a gain, then the half-split rotation; out may be x.
inline void rotate_head(const float* x, const float* gain, float eps, const float* cos, const float* sin, int64_t d,
                        float* out) {
  const int64_t half = d / 2;
  float inverse = 1.0f;
  if (gain != nullptr) {
    F squares = f_zero();
    for (int64_t i = 0; i < d; i += W) {
      const F v = d - i >= W ? f_load(x + i) : f_load_n(x + i, static_cast<int>(d - i));
      squares = f_fma(v, v, squares);
    }
    inverse = 1.0f / __builtin_sqrtf(f_sum(squares) / static_cast<float>(d) + eps);
  }
  for (int64_t i = 0; i < half; i += W) {
    const bool whole = half - i >= W;
    const int n = static_cast<int>(half - i);
    auto load = [&](const float* p) { return whole ? f_load(p + i) : f_load_n(p + i, n); };
    auto store = [&](float* p, F v) { whole ? f_store(p + i, v) : f_store_n(p + i, v, n); };
    F first = load(x), second = load(x + half);
    if (gain != nullptr) {
      first = f_mul(f_mul(first, f_set1(inverse)), load(gain));
      second = f_mul(f_mul(second, f_set1(inverse)), load(gain + half));
    }
    const F c = load(cos), s = load(sin);
    store(out, f_sub(f_mul(first, c), f_mul(second, s)));
    store(out + half, f_fma(first, s, f_mul(second, c)));
  }
}

inline void write_f32(const float* k, const float* v, int64_t d, int64_t slot, uint8_t* page) {
  auto* keys = reinterpret_cast<float*>(page);
  float* values = keys + d * kPageKeys;
  for (int64_t i = 0; i < d; ++i) keys[i * kPageKeys + slot] = k[i];
  for (int64_t i = 0; i < d; ++i) values[slot * d + i] = v[i];
}

inline void write_bf16(const float* k, const float* v, int64_t d, int64_t slot, uint8_t* page) {
  auto* keys = reinterpret_cast<uint32_t*>(page);
  auto* values = reinterpret_cast<uint16_t*>(page) + d * kPageKeys + slot / 2 * d * 2 + slot % 2;
  for (int64_t i = 0; i < d; i += 2) {
    keys[i / 2 * kPageKeys + slot] = round_bf16(k[i]) | static_cast<uint32_t>(round_bf16(k[i + 1])) << 16;
  }
  for (int64_t i = 0; i < d; ++i) values[2 * i] = round_bf16(v[i]);
}

inline void write_int8(const float* k, const float* v, int64_t d, int64_t slot, uint8_t* page) {
  alignas(64) int32_t codes[kMostDim];
  auto* keys = reinterpret_cast<int8_t*>(page) + 4 * slot;
  auto* values = reinterpret_cast<int8_t*>(page) + d * kPageKeys + slot / 4 * d * 4 + slot % 4;
  auto* scales = reinterpret_cast<float*>(page + 2 * d * kPageKeys);
  scales[slot] = quantise(k, d, codes);
  for (int64_t i = 0; i < d; ++i) keys[i / 4 * kKeyStep + i % 4] = static_cast<int8_t>(codes[i]);
  scales[kPageKeys + slot] = quantise(v, d, codes);
  for (int64_t i = 0; i < d; ++i) values[4 * i] = static_cast<int8_t>(codes[i]);
}

void rotate_and_write(const RotateArgs& a, int64_t begin, int64_t end) {
  const int64_t d = a.head_dim, row_step = (a.n_heads + 2 * a.n_kv_heads) * d;
  const auto write = a.kind == PageKind::f32 ? write_f32 : a.kind == PageKind::bf16 ? write_bf16 : write_int8;
  alignas(64) float key[kMostDim];
  for (int64_t row = begin; row < end; ++row) {
    float* q = a.qkv + row * row_step;
    const int64_t position = a.positions[row];
    const float *cos = a.cos + position * (d / 2), *sin = a.sin + position * (d / 2);
    for (int64_t head = 0; head < a.n_heads; ++head) {
      rotate_head(q + head * d, a.q_gain, a.eps, cos, sin, d, q + head * d);
    }
    const float *k = q + a.n_heads * d, *v = k + a.n_kv_heads * d;
    for (int64_t head = 0; head < a.n_kv_heads; ++head) {
      rotate_head(k + head * d, a.k_gain, a.eps, cos, sin, d, key);
      write(key, v + head * d, d, position % kPageKeys,
            a.pages + a.row_pages[row] * a.page_step + head * a.page_bytes);
    }
  }
}

// ---- the kinds of page ------------------------------------------------------------------------------------------

// A tile at work.
template <class Page>
struct Tile {
  const uint8_t* page;
  int64_t ahead;  // bytes to the page that comes next, whose lines are fetched meanwhile, or 0
  int64_t head_dim;
  const typename Page::Query* query;  // [R][head_dim]
  const float* query_scale;           // int8: [R]
  const int32_t* query_sum;           // int8: [R]
  typename Page::Values values;       // of the whole page
  int n_keys;                         // those beyond are visible to no entry
  bool masked;                        // then entry r sees the keys low[r] to high[r] - 1 of the page
  int low[kPageRows], high[kPageRows];
  int64_t out_step;
  float* out;      // [R][out_step]
  float* largest;  // [R]
  float* total;    // [R]
};

template <int P>
inline void fetch_ahead(const uint8_t* row, int64_t ahead) {
#pragma GCC unroll 4
  for (int line = 0; line < P; ++line) __builtin_prefetch(row + ahead + 64 * line, 0, 2);  // into the second level
}

template <int R, int N, class Sum>
inline void clear(Sum (&acc)[R][N]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int j = 0; j < N; ++j) acc[r][j] = Sum{};
  }
}

alignas(64) constexpr float kPlaces[kKeys] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

// `inside` where the key's place in the page is from low to high - 1, else `outside`.
inline F between(int low, int high, int key, F inside, F outside) {
  const F place = f_load(kPlaces + key), below = f_set1(static_cast<float>(low - 1));
  return f_less(place, f_set1(static_cast<float>(high)), f_less(below, place, inside, outside), outside);
}

struct NoValues {
  static constexpr float unit = 1.0f;
  void read(const uint8_t*, int64_t, int, int) {}
};

// What a kind of page defines:
//   Query, Weight     elements of packed queries and of weights, as the products take them
//   kTerms, kRows     values in a cell; most entries of a tile
//   pack              a query in its form
//   scores            sums of products of R queries with P panels of keys from `key` on, as scores
//   Values            what weights need to know of the values from low to high - 1: by what `mix` must be multiplied
//   kWeights, put     elements of an entry's weights; those of W keys from `key` on
//   mix               sums of products of R entries' weights with P panels of values, as floats
struct F32Page {
  using Query = float;
  using Weight = float;
  static constexpr int kTerms = 1, kRows = kPageRows, kWeights = kKeys;
  using Values = NoValues;

  // acc[r][:] += x[r * x_step + k] * (row k of the cells), in order of k.
  template <int R, int P>
  static void product(const float* x, int64_t x_step, const uint8_t* cells, int64_t step, int64_t n, int64_t ahead,
                      F (&acc)[R][P * V]) {
    for (int64_t k = 0; k < n; ++k) {
      const uint8_t* row = cells + k * step;
      fetch_ahead<P>(row, ahead);
      F column[P * V];
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) column[j] = f_load(reinterpret_cast<const float*>(row) + j * W);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const F value = f_set1(x[r * x_step + k]);
#pragma GCC unroll 16
        for (int j = 0; j < P * V; ++j) acc[r][j] = f_fma(value, column[j], acc[r][j]);
      }
    }
  }
  static void pack(const float* x, int64_t d, float scale, float* query, float*, int32_t*) {
    for (int64_t i = 0; i < d; ++i) query[i] = x[i] * scale;
  }
  template <int R, int P>
  static void scores(const Tile<F32Page>& t, int key, F (&acc)[R][P * V]) {
    product<R, P>(t.query, t.head_dim, t.page + 4 * key, kKeyStep, t.head_dim, t.ahead, acc);
  }
  static void put(const Values&, float* weights, int key, F weight) { f_store(weights + key, weight); }
  template <int R, int P>
  static void mix(const Tile<F32Page>& t, const float* weights, int64_t column, F (&acc)[R][P * V]) {
    product<R, P>(weights, kWeights, t.page + 4 * t.head_dim * kPageKeys + 4 * column, 4 * t.head_dim, t.n_keys,
                  t.ahead, acc);
  }
};

struct Bf16Page {
#if defined(__AVX512BF16__)
  using Query = uint16_t;
#else
  using Query = float;  // no dot product: keys and values are widened (exact), queries and weights stay f32
#endif
  using Weight = Query;
  static constexpr int kTerms = 2, kRows = kPageRows, kWeights = kKeys;
  using Values = NoValues;

#if defined(__AVX512BF16__)
  template <int R, int P>
  static void product(const uint16_t* x, int64_t x_step, const uint8_t* cells, int64_t step, int64_t n, int64_t ahead,
                      F (&acc)[R][P * V]) {
    for (int64_t k = 0; k < n; ++k) {
      const uint8_t* row = cells + k * step;
      fetch_ahead<P>(row, ahead);
      H column[P * V];
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) column[j] = h_load(reinterpret_cast<const uint16_t*>(row) + j * 2 * W);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const auto pair = p_broadcast(x + (r * x_step + 2 * k));
#pragma GCC unroll 16
        for (int j = 0; j < P * V; ++j) acc[r][j] = f_dot2(acc[r][j], pair, column[j]);
      }
    }
  }
  // Writes whole vectors: the excess is where the next query goes, or slack.
  static void pack(const float* x, int64_t d, float scale, uint16_t* query, float*, int32_t*) {
    for (int64_t i = 0; i < d; i += W) {
      const F v = d - i >= W ? f_load(x + i) : f_load_n(x + i, static_cast<int>(d - i));
      h_round(query + i, f_mul(v, f_set1(scale)));
    }
  }
  static void put(const Values&, uint16_t* weights, int key, F weight) { h_round(weights + key, weight); }
#else
  template <int R, int P>
  static void product(const float* x, int64_t x_step, const uint8_t* cells, int64_t step, int64_t n, int64_t ahead,
                      F (&acc)[R][P * V]) {
    for (int64_t k = 0; k < n; ++k) {
      const uint8_t* row = cells + k * step;
      fetch_ahead<P>(row, ahead);
      F even[P * V], odd[P * V];
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) {
        f_widen_pairs(reinterpret_cast<const uint16_t*>(row) + j * 2 * W, &even[j], &odd[j]);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const F first = f_set1(x[r * x_step + 2 * k]), second = f_set1(x[r * x_step + 2 * k + 1]);
#pragma GCC unroll 16
        for (int j = 0; j < P * V; ++j) acc[r][j] = f_fma(second, odd[j], f_fma(first, even[j], acc[r][j]));
      }
    }
  }
  static void pack(const float* x, int64_t d, float scale, float* query, float*, int32_t*) {
    for (int64_t i = 0; i < d; ++i) query[i] = x[i] * scale;
  }
  static void put(const Values&, float* weights, int key, F weight) { f_store(weights + key, weight); }
#endif

  template <int R, int P>
  static void scores(const Tile<Bf16Page>& t, int key, F (&acc)[R][P * V]) {
    product<R, P>(t.query, t.head_dim, t.page + 4 * key, kKeyStep, t.head_dim / 2, t.ahead, acc);
  }
  template <int R, int P>
  static void mix(const Tile<Bf16Page>& t, const Weight* weights, int64_t column, F (&acc)[R][P * V]) {
    product<R, P>(weights, kWeights, t.page + 2 * t.head_dim * kPageKeys + 4 * column, 4 * t.head_dim,
                  (t.n_keys + 1) / 2, t.ahead, acc);
  }
};

// Queries are int8 with a scale a row and head; both products are exact in int32. A weight takes the scale of its value
// along and becomes a code of 14 bits, relative to the largest scale that the entry sees in the page: two digits of 7
// bits, which every dot product can take on either side. With one digit all that lies below 1/254 of a page's largest
// weight would vanish, and with that as much of the result as there are such keys: seen, a relative error of 1.5e-2
// (8e-3 with 8 bits, 1e-4 with 14; the int8 queries cost 5e-3) for prefill a third faster. Decoding waits for memory.
struct Int8Page {
  using Query = int8_t;
  using Weight = uint8_t;  // [64] high digits, [64] low digits
  static constexpr int kTerms = 4, kRows = kInt8Rows < kPageRows ? kInt8Rows : kPageRows, kWeights = 2 * kKeys;
  static constexpr float kMostCode = 128 * 128 - 1;

  static const float* scales(const uint8_t* page, int64_t d) {
    return reinterpret_cast<const float*>(page + 2 * d * kPageKeys);
  }

  struct Values {
    float unit;  // of a code
    alignas(64) float per_weight[kKeys];
    void read(const uint8_t* page, int64_t d, int low, int high) {
      F top = f_zero();
      for (int key = 0; key < kKeys; key += W) {
        const F seen = between(low, high, key, f_load(scales(page, d) + kPageKeys + key), f_zero());
        f_store(per_weight + key, seen);
        top = f_max(top, seen);
      }
      unit = f_hmax(top) / kMostCode;
      const F inverse = f_set1(unit > 1e-37f ? 1.0f / unit : 0.0f);
      for (int key = 0; key < kKeys; key += W) f_store(per_weight + key, f_mul(f_load(per_weight + key), inverse));
    }
  };

  static void pack(const float* x, int64_t d, float scale, int8_t* query, float* query_scale, int32_t* query_sum) {
    alignas(64) int32_t codes[kMostDim];
    *query_scale = quantise(x, d, codes) * scale;
    int32_t sum = 0;
    for (int64_t i = 0; i < d; ++i) {
      query[i] = static_cast<int8_t>(codes[i]);
      sum += query[i];
    }
    *query_sum = sum;
  }

  template <int R, int P>
  static void scores(const Tile<Int8Page>& t, int key, F (&out)[R][P * V]) {
    I acc[R][P * V];
    clear(acc);
    for (int64_t k = 0; k < t.head_dim / 4; ++k) {
      const uint8_t* row = t.page + 4 * key + k * kKeyStep;
      fetch_ahead<P>(row, t.ahead);
      B column[P * V];
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) column[j] = b_rows(row + j * 4 * W);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const B quad = b_broadcast(t.query + (r * t.head_dim + 4 * k));
#pragma GCC unroll 16
        for (int j = 0; j < P * V; ++j) acc[r][j] = i_dot4_rows(acc[r][j], column[j], quad);
      }
    }
    const float* scale = scales(t.page, t.head_dim) + key;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const I offset = i_set1(kSignedOffset * t.query_sum[r]);
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) {
        const F exact = f_from_i(i_sub(acc[r][j], offset));
        out[r][j] = f_mul(f_mul(exact, f_set1(t.query_scale[r])), f_load(scale + j * W));
      }
    }
  }

  static void put(const Values& values, uint8_t* weights, int key, F weight) {
    const I code = i_round(f_mul(weight, f_load(values.per_weight + key)));
    store_u8(weights + key, i_shift7(code));
    store_u8(weights + kKeys + key, i_low7(code));
  }

  template <int R, int P>
  static void mix(const Tile<Int8Page>& t, const uint8_t* weights, int64_t column, F (&out)[R][P * V]) {
    I acc[R][P * V];
    clear(acc);
    for (int digit = 0; digit < 2; ++digit) {
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int j = 0; j < P * V; ++j) acc[r][j] = i_mul(acc[r][j], i_set1(128));
      }
      for (int64_t k = 0; k < (t.n_keys + 3) / 4; ++k) {
        const uint8_t* row = t.page + t.head_dim * kPageKeys + 4 * (column + k * t.head_dim);
        fetch_ahead<P>(row, t.ahead);
        B values[P * V];
#pragma GCC unroll 16
        for (int j = 0; j < P * V; ++j) values[j] = b_load(row + j * 4 * W);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const X quad = x_broadcast(weights + (r * kWeights + digit * kKeys + 4 * k));
#pragma GCC unroll 16
          for (int j = 0; j < P * V; ++j) acc[r][j] = i_dot4(acc[r][j], quad, values[j]);
        }
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int j = 0; j < P * V; ++j) out[r][j] = f_from_i(acc[r][j]);
    }
  }
};

// ---- attending --------------------------------------------------------------------------------------------------

// out = out * before + (the page's sums) * now
template <class Page, int R, int P>
inline void mix_values(const Tile<Page>& t, const typename Page::Weight* weights, const float* before, const float* now,
                       int64_t column) {
  F acc[R][P * V];
  clear(acc);
  Page::template mix<R, P>(t, weights, column, acc);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const F share_before = f_set1(before[r]), share_now = f_set1(now[r]);
    float* out = t.out + r * t.out_step + column;
#pragma GCC unroll 16
    for (int j = 0; j < P * V; ++j) {
      f_store(out + j * W, f_fma(acc[r][j], share_now, f_mul(f_load(out + j * W), share_before)));
    }
  }
}

template <class Page, int R, int P = 1>
inline auto mix_of(int64_t panels) {
  if constexpr (P == kPagePanels) {
    return &mix_values<Page, R, P>;
  } else {
    return panels == P ? &mix_values<Page, R, P> : mix_of<Page, R, P + 1>(panels);
  }
}

template <class Page, int R>
void attend_tile(const Tile<Page>& t) {
  constexpr int P = kPagePanels;
  alignas(64) float scores[R * kKeys];
  for (int key = 0; key < kKeys; key += P * static_cast<int>(kPanel)) {
    F acc[R][P * V];
    clear(acc);
    Page::template scores<R, P>(t, key, acc);
    store_tile<R, P>(acc, scores + key, kKeys);
  }
  if (t.masked) {
    for (int r = 0; r < R; ++r) {
      for (int key = 0; key < kKeys; key += W) {
        float* score = scores + r * kKeys + key;
        f_store(score, between(t.low[r], t.high[r], key, f_load(score), f_set1(kNothing)));
      }
    }
  }

  constexpr int kLanes = (R + W - 1) / W * W;
  alignas(64) float top[R], before[kLanes] = {}, now[kLanes] = {};
  for (int r = 0; r < R; ++r) {
    F most = f_load(scores + r * kKeys);
#pragma GCC unroll 16
    for (int key = W; key < kKeys; key += W) most = f_max(most, f_load(scores + r * kKeys + key));
    top[r] = f_hmax(most);
    const float largest = top[r] > t.largest[r] ? top[r] : t.largest[r];
    const float base = largest == kNothing ? 0.0f : largest;  // nothing seen so far: both shares are 0
    before[r] = t.largest[r] - base;
    now[r] = top[r] - base;
    t.largest[r] = largest;
  }
  for (int r = 0; r < R; r += W) {
    f_store(before + r, f_exp2(f_load(before + r)));
    f_store(now + r, f_exp2(f_load(now + r)));
  }

  alignas(64) typename Page::Weight weights[R * Page::kWeights];
  for (int r = 0; r < R; ++r) {
    typename Page::Values seen;
    if (t.masked) seen.read(t.page, t.head_dim, t.low[r], t.high[r]);
    const typename Page::Values& values = t.masked ? seen : t.values;
    const F base = f_set1(top[r] == kNothing ? 0.0f : top[r]);
    F sum = f_zero();
#pragma GCC unroll 16
    for (int key = 0; key < kKeys; key += W) {
      const F weight = f_exp2(f_sub(f_load(scores + r * kKeys + key), base));
      sum = f_add(sum, weight);
      Page::put(values, weights + r * Page::kWeights, key, weight);
    }
    t.total[r] = t.total[r] * before[r] + f_sum(sum) * now[r];
    now[r] *= values.unit;
  }

  const int64_t panels = t.out_step / kPanel, blocks = (panels + kPagePanels - 1) / kPagePanels;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = panels * block / blocks, n = panels * (block + 1) / blocks - first;
    mix_of<Page, R>(n)(t, weights, before, now, first * kPanel);
  }
}

template <class Page, int R = 1>
inline auto tile_over_page(int rows) {
  if constexpr (R == Page::kRows) {
    return &attend_tile<Page, R>;
  } else {
    return rows == R ? &attend_tile<Page, R> : tile_over_page<Page, R + 1>(rows);
  }
}

// The shape of a block, and its packed queries: [entries][head_dim], then, for int8, a scale and a sum each.
template <class Page>
struct Block {
  int64_t group, per_head, n;  // query heads of a KV head; entries of a KV head; entries
  typename Page::Query* query;
  float* scale;
  int32_t* sum;
  Block(const PagesArgs& a, const QueryBlock& b, void* queries)
      : group(a.n_heads / a.n_kv_heads),
        per_head(b.n_rows * group),
        n(b.n_kv_heads * per_head),
        query(static_cast<typename Page::Query*>(queries)),
        scale(reinterpret_cast<float*>(static_cast<uint8_t*>(queries) + 4 * n * a.head_dim)),
        sum(reinterpret_cast<int32_t*>(scale + n)) {}
};

template <class Page>
void pack_queries_of(const PagesArgs& a, const QueryBlock& b, void* queries) {
  const int64_t d = a.head_dim, row_step = (a.n_heads + 2 * a.n_kv_heads) * d;
  const Block<Page> block(a, b, queries);
  for (int64_t i = 0; i < block.n; ++i) {
    const int64_t in_head = i % block.per_head, row = b.row + in_head / block.group;
    const int64_t head = (b.kv_head + i / block.per_head) * block.group + in_head % block.group;
    Page::pack(a.qkv + row * row_step + head * d, d, a.scale * kLog2E, block.query + i * d, block.scale + i,
               block.sum + i);
  }
}

template <class Page>
void attend_pages_of(const PagesArgs& a, const QueryBlock& b, const void* queries, int64_t begin, int64_t end,
                     float* part) {
  const int64_t d = a.head_dim, width = padded_dim(d);
  const Block<Page> block(a, b, const_cast<void*>(queries));
  float *largest = part + block.n * width, *total = largest + block.n;
  for (int64_t i = 0; i < block.n * width; ++i) part[i] = 0.0f;
  for (int64_t i = 0; i < block.n; ++i) largest[i] = kNothing;
  for (int64_t i = 0; i < block.n; ++i) total[i] = 0.0f;

  // In the order of memory: the heads of a page lie side by side.
  const uint8_t* next = nullptr;
  auto page_at = [&](int64_t at) {
    const int64_t page = b.page_table[begin + at / b.n_kv_heads], head = b.kv_head + at % b.n_kv_heads;
    return a.pages + page * a.page_step + head * a.page_bytes;
  };
  const int64_t n_pages = (end - begin) * b.n_kv_heads;
  for (int64_t at = 0; at < n_pages; ++at) {
    Tile<Page> t;
    t.page = at == 0 ? page_at(0) : next;
    next = at + 1 < n_pages ? page_at(at + 1) : t.page;
    t.ahead = next - t.page;
    t.head_dim = d;
    t.values.read(t.page, d, 0, kKeys);
    t.out_step = width;
    const int64_t first_key = (begin + at / b.n_kv_heads) * kPageKeys, first_entry = at % b.n_kv_heads * block.per_head;
    for (int64_t i = 0; i < block.per_head; i += Page::kRows) {
      const int rows = static_cast<int>(block.per_head - i < Page::kRows ? block.per_head - i : Page::kRows);
      // Where the first and the last row of the tile stand, and where their windows begin, from the page's first key.
      const int64_t first = b.position + i / block.group - first_key;
      const int64_t last = b.position + (i + rows - 1) / block.group - first_key;
      const int64_t back = a.window == 0 ? 0 : a.window - 1;
      if (last < 0 || (a.window != 0 && first - back >= kPageKeys)) continue;
      t.n_keys = static_cast<int>(last + 1 < kPageKeys ? last + 1 : kPageKeys);
      t.masked = first + 1 < kPageKeys || (a.window != 0 && last - back > 0);
      for (int r = 0; t.masked && r < rows; ++r) {
        const int64_t at_row = b.position + (i + r) / block.group - first_key, low = a.window == 0 ? 0 : at_row - back;
        t.low[r] = static_cast<int>(low < 0 ? 0 : low < kPageKeys ? low : kPageKeys);
        t.high[r] = static_cast<int>(at_row < 0 ? 0 : at_row < kPageKeys ? at_row + 1 : kPageKeys);
      }
      const int64_t entry = first_entry + i;
      t.query = block.query + entry * d;
      t.query_scale = block.scale + entry;
      t.query_sum = block.sum + entry;
      t.out = part + entry * width;
      t.largest = largest + entry;
      t.total = total + entry;
      tile_over_page<Page>(rows)(t);
      t.ahead = 0;
    }
  }
}

void pack_queries(const PagesArgs& a, const QueryBlock& b, void* queries) {
  switch (a.kind) {
    case PageKind::f32: return pack_queries_of<F32Page>(a, b, queries);
    case PageKind::bf16: return pack_queries_of<Bf16Page>(a, b, queries);
    case PageKind::int8: return pack_queries_of<Int8Page>(a, b, queries);
  }
}

void attend_pages(const PagesArgs& a, const QueryBlock& b, const void* queries, int64_t begin, int64_t end,
                  float* part) {
  switch (a.kind) {
    case PageKind::f32: return attend_pages_of<F32Page>(a, b, queries, begin, end, part);
    case PageKind::bf16: return attend_pages_of<Bf16Page>(a, b, queries, begin, end, part);
    case PageKind::int8: return attend_pages_of<Int8Page>(a, b, queries, begin, end, part);
  }
}

// ---- merging ----------------------------------------------------------------------------------------------------

// out = a * share_a + b * share_b
inline void blend(const float* a, float share_a, const float* b, float share_b, int64_t width, float* out) {
  for (int64_t i = 0; i < width; i += W) {
    const bool whole = width - i >= W;
    const int n = static_cast<int>(width - i);
    const F x = whole ? f_load(a + i) : f_load_n(a + i, n), y = whole ? f_load(b + i) : f_load_n(b + i, n);
    const F sum = f_fma(x, f_set1(share_a), f_mul(y, f_set1(share_b)));
    whole ? f_store(out + i, sum) : f_store_n(out + i, sum, n);
  }
}

void fold_part(int64_t n, int64_t width, const float* part, float* total) {
  const float *part_largest = part + n * width, *part_sum = part_largest + n;
  float *largest = total + n * width, *sum = largest + n;
  for (int64_t i = 0; i < n; ++i) {
    if (part_largest[i] == kNothing) continue;
    float* out = total + i * width;
    if (largest[i] == kNothing) {
      for (int64_t c = 0; c < width; c += W) f_store(out + c, f_load(part + i * width + c));
      sum[i] = part_sum[i];
      largest[i] = part_largest[i];
      continue;
    }
    const float top = part_largest[i] > largest[i] ? part_largest[i] : largest[i];
    const float mine = exp2_one(largest[i] - top), theirs = exp2_one(part_largest[i] - top);
    blend(out, mine, part + i * width, theirs, width, out);
    sum[i] = sum[i] * mine + part_sum[i] * theirs;
    largest[i] = top;
  }
}

void finish_part(const PagesArgs& a, const QueryBlock& b, const float* total) {
  const int64_t d = a.head_dim, width = padded_dim(d), group = a.n_heads / a.n_kv_heads, per_head = b.n_rows * group;
  const int64_t n = b.n_kv_heads * per_head;
  const float *largest = total + n * width, *sum = largest + n;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = b.row + i % per_head / group, head = (b.kv_head + i / per_head) * group + i % per_head % group;
    const bool empty = largest[i] == kNothing;
    const float share = empty ? 0.0f : 1.0f / sum[i];
    float* out = a.out + (row * a.n_heads + head) * d;
    for (int64_t c = 0; c < d; c += W) {
      const F value = f_mul(f_load(total + i * width + c), f_set1(share));
      d - c >= W ? f_store(out + c, value) : f_store_n(out + c, value, static_cast<int>(d - c));
    }
    if (a.lse != nullptr) a.lse[row * a.n_heads + head] = empty ? kNothing : largest[i] * kLn2 + __builtin_logf(sum[i]);
  }
}

void merge(const MergeArgs& a, int64_t begin, int64_t end) {
  for (int64_t i = begin * a.n_heads; i < end * a.n_heads; ++i) {
    const float x = a.lse_a[i], y = a.lse_b[i], top = x > y ? x : y;
    // An empty part is (0, -inf); its share is 0 and the other one's 1, exactly.
    const float base = top == kNothing ? 0.0f : top;
    const float share_x = exp2_one((x - base) * kLog2E), share_y = exp2_one((y - base) * kLog2E);
    const float sum = share_x + share_y, inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    blend(a.out_a + i * a.head_dim, share_x * inverse, a.out_b + i * a.head_dim, share_y * inverse, a.head_dim,
          a.out + i * a.head_dim);
    a.lse[i] = sum == 0.0f ? kNothing : top + __builtin_logf(sum);
  }
}

}  // namespace
}  // namespace kogata
