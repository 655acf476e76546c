// Dot products of one query with rows, and the scan of 4-bit prefix codes: included by every isa_*.cpp after the vector type.
// A row's score depends on that row alone: fixed accumulators over the width, added in a fixed order.

namespace kogata {
namespace {

constexpr int64_t kLine = 64;     // bytes of a cache line
constexpr int64_t kRowsAhead = 4;  // gathered rows are fetched this far ahead: hardware cannot guess where the next one is

template <class Element>
inline const Element* score_row(const ScoreArgs& a, int64_t place, int64_t end) {
  const auto* rows = static_cast<const Element*>(a.rows);
  if (!a.index) return rows + place * a.width;
  if (place + kRowsAhead < end) {
    const auto* ahead = reinterpret_cast<const char*>(rows + a.index[place + kRowsAhead] * a.width);
    for (int64_t byte = 0; byte < a.width * static_cast<int64_t>(sizeof(Element)); byte += kLine) {
      __builtin_prefetch(ahead + byte);
    }
  }
  return rows + a.index[place] * a.width;
}

inline F score_load(const float* p) { return f_load(p); }
inline F score_load(const uint16_t* p) { return f_load_half(p); }

template <class Element>
inline float score_dot(const float* query, const Element* row, int64_t width) {
  F sums[4] = {f_zero(), f_zero(), f_zero(), f_zero()};
  int64_t i = 0;
  for (; i + 4 * W <= width; i += 4 * W) {
    for (int j = 0; j < 4; ++j) sums[j] = f_fma(f_load(query + i + j * W), score_load(row + i + j * W), sums[j]);
  }
  for (; i + W <= width; i += W) sums[0] = f_fma(f_load(query + i), score_load(row + i), sums[0]);
  if (i < width) {
    Element rest[W] = {};
    for (int64_t j = i; j < width; ++j) rest[j - i] = row[j];
    sums[1] = f_fma(f_load_n(query + i, static_cast<int>(width - i)), score_load(rest), sums[1]);
  }
  return f_sum(f_add(f_add(sums[0], sums[1]), f_add(sums[2], sums[3])));
}

template <class Element>
void score_float(const ScoreArgs& a, int64_t begin, int64_t end) {
  auto* out = static_cast<float*>(a.out);
  for (int64_t i = begin; i < end; ++i) {
    out[i - begin] = score_dot(static_cast<const float*>(a.query), score_row<Element>(a, i, end), a.width);
  }
}

inline int32_t score_dot_int8(const int8_t* query, const int8_t* row, int64_t width) {
  constexpr int64_t step = 4 * W;
  I sums = i_zero();
  int64_t i = 0;
  for (; i + step <= width; i += step) sums = i_dot4_signed(sums, b_load(row + i), b_load(query + i));
  if (i < width) {
    int8_t query_rest[step] = {}, row_rest[step] = {};
    for (int64_t j = i; j < width; ++j) {
      query_rest[j - i] = query[j];
      row_rest[j - i] = row[j];
    }
    sums = i_dot4_signed(sums, b_load(row_rest), b_load(query_rest));
  }
  return i_sum(sums);
}

void score_int8(const ScoreArgs& a, int64_t begin, int64_t end) {
  const auto* query = static_cast<const int8_t*>(a.query);
  auto* out = static_cast<int32_t*>(a.out);
  int32_t offset = 0;
  for (int64_t i = 0; i < a.width; ++i) offset += kSignedOffset * query[i];
  for (int64_t i = begin; i < end; ++i) {
    out[i - begin] = score_dot_int8(query, score_row<int8_t>(a, i, end), a.width) - offset;
  }
}

// Sums of a block's 16 rows lie in the lanes of 16 / W vectors: nothing is ever added across lanes, and a whole vector of
// rows is dismissed by one comparison. The sums of 2,048 dimensions, 2048 * 15 * 127, fit an int32.
int64_t scan_codes(const ScanArgs& a, int64_t begin, int64_t end, int32_t threshold, int32_t* sums_out, uint32_t* rows_out) {
  constexpr int kParts = 16 / W;
  const I limit = i_set1(threshold);
  int64_t hits = 0;
  for (int64_t block = begin; block < end; ++block) {
    const uint8_t* codes = a.codes + block * a.n_groups * 64;
    I sums[kParts];
    for (int part = 0; part < kParts; ++part) sums[part] = i_zero();
    for (int64_t group = 0; group < a.n_groups; ++group) {
      const B first = b_broadcast(a.query + 8 * group), second = b_broadcast(a.query + 8 * group + 4);
      for (int part = 0; part < kParts; ++part) {
        B low, high;
        b_load_halves(codes + group * 64 + part * 4 * W, &low, &high);
        sums[part] = i_dot4_halves(i_dot4_halves(sums[part], low, first), high, second);
      }
    }
    for (int part = 0; part < kParts; ++part) {
      if (!i_any_at_least(sums[part], limit)) continue;
      int32_t lanes_out[W];
      i_store(lanes_out, sums[part]);
      for (int lane = 0; lane < W; ++lane) {
        if (lanes_out[lane] < threshold) continue;
        sums_out[hits] = lanes_out[lane];
        rows_out[hits++] = static_cast<uint32_t>(block * 16 + part * W + lane);
      }
    }
  }
  return hits;
}

}  // namespace
}  // namespace kogata
