// Bindings of score, and the selection that joins its kernels: scores of a chunk of rows are offered to a small buffer of
// keys; what is kept is decided by (score, lowest row), a total order, so neither chunks nor threads can change a result.
#include "bindings.h"

#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <vector>

#include "dispatch.h"
#include "pool.h"

namespace kogata {
namespace {

constexpr int64_t kScoreRows = 128;      // rows a kernel scores at a time: they stay in L2 for all queries
constexpr int64_t kChunkBytes = 4 << 20;  // what one thread takes at a time
constexpr int64_t kScanBlocks = 64;      // blocks of 16 rows scanned between two looks at the threshold
constexpr int64_t kChunkBlocks = 2048;
constexpr int64_t kSampleRuns = 128, kSampleBlocks = 8;

// Keys order by score, then by lowest row, as plain integers.
uint64_t make_key(uint32_t ordered_score, uint32_t row) {
  return (static_cast<uint64_t>(ordered_score) << 32) | (0xffffffffu - row);
}

int64_t row_of(uint64_t key) { return 0xffffffffu - static_cast<uint32_t>(key); }

uint32_t ordered(float score) {
  if (std::isnan(score)) score = -std::numeric_limits<float>::infinity();
  score += 0.0f;  // -0 and 0 are equal
  uint32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

float score_of(uint64_t key) {
  const uint32_t high = static_cast<uint32_t>(key >> 32);
  const uint32_t bits = high & 0x80000000u ? high & 0x7fffffffu : ~high;
  float score;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

// The k highest keys of all that were offered, in no order until sorted.
class Best {
 public:
  explicit Best(int64_t k) : k_(static_cast<size_t>(k)) {}

  uint64_t floor() const { return floor_; }  // no key below it can be among the best
  void raise_floor(uint64_t floor) { floor_ = std::max(floor_, floor); }
  const std::vector<uint64_t>& keys() const { return keys_; }

  void offer(uint64_t key) {
    if (key < floor_) return;
    keys_.push_back(key);
    if (keys_.size() >= k_ + std::max<size_t>(k_, 1024)) shrink();
  }

  void shrink() {
    if (keys_.size() < k_) return;
    std::nth_element(keys_.begin(), keys_.begin() + static_cast<ptrdiff_t>(k_ - 1), keys_.end(), std::greater<>());
    keys_.resize(k_);
    raise_floor(keys_.back());
  }

 private:
  size_t k_;
  uint64_t floor_ = 0;
  std::vector<uint64_t> keys_;
};

// What all chunks of one query have found so far.
class SharedBest {
 public:
  explicit SharedBest(int64_t k) : k_(k), best_(k) {}

  int64_t k() const { return k_; }

  uint64_t floor() {
    std::lock_guard lock(mutex_);
    return best_.floor();
  }

  void merge(Best& part) {
    part.shrink();
    std::lock_guard lock(mutex_);
    best_.raise_floor(part.floor());  // k keys of the part are not below it
    for (uint64_t key : part.keys()) best_.offer(key);
  }

  std::vector<uint64_t> keys() {  // in no order
    best_.shrink();
    return best_.keys();
  }

 private:
  int64_t k_;
  std::mutex mutex_;
  Best best_;
};

using Kernel = void (*)(const ScoreArgs&, int64_t, int64_t);
using Index = std::optional<Array<const int64_t, 1>>;

struct TopK {
  const void* queries;
  int64_t n_queries, width;
  size_t element_bytes;        // of a query's entries
  const float* query_scales;   // int8: one a query; else null
  const float* row_scales;     // int8: one a row
  int64_t k;

  // Scores candidates [0, n) of args.rows (through args.index where there is one); keys are made of row numbers.
  void run(const ScoreArgs& shared, Kernel kernel, int64_t n, size_t row_bytes, float* scores_QK, int64_t* rows_QK) const {
    std::deque<SharedBest> found;
    for (int64_t q = 0; q < n_queries; ++q) found.emplace_back(k);
    const int64_t per_chunk =
        std::max<int64_t>(kScoreRows, kChunkBytes / static_cast<int64_t>(row_bytes) / kScoreRows * kScoreRows);
    const int64_t n_chunks = (n + per_chunk - 1) / per_chunk;
    parallel_for(n_chunks, [&](int64_t chunk) {
      const int64_t begin = chunk * per_chunk, end = std::min(n, begin + per_chunk);
      std::vector<Best> parts;
      for (int64_t q = 0; q < n_queries; ++q) {
        parts.emplace_back(k);
        parts.back().raise_floor(found[static_cast<size_t>(q)].floor());
      }
      for (int64_t row = begin; row < end; row += kScoreRows) {
        const int64_t stop = std::min(end, row + kScoreRows);
        for (int64_t q = 0; q < n_queries; ++q) score(shared, kernel, q, row, stop, parts[static_cast<size_t>(q)]);
      }
      for (int64_t q = 0; q < n_queries; ++q) found[static_cast<size_t>(q)].merge(parts[static_cast<size_t>(q)]);
    });
    for (int64_t q = 0; q < n_queries; ++q) {
      std::vector<uint64_t> keys = found[static_cast<size_t>(q)].keys();
      std::sort(keys.begin(), keys.end(), std::greater<>());
      for (int64_t i = 0; i < k; ++i) {
        scores_QK[q * k + i] = score_of(keys[static_cast<size_t>(i)]);
        rows_QK[q * k + i] = row_of(keys[static_cast<size_t>(i)]);
      }
    }
  }

  void score(const ScoreArgs& shared, Kernel kernel, int64_t q, int64_t begin, int64_t end, Best& part) const {
    float sums[kScoreRows];
    ScoreArgs args = shared;
    args.query = static_cast<const char*>(queries) + static_cast<size_t>(q * width) * element_bytes;
    args.out = sums;
    kernel(args, begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = args.index ? args.index[i] : i;
      float value = sums[i - begin];
      if (row_scales) {
        int32_t sum;
        std::memcpy(&sum, &sums[i - begin], sizeof sum);
        value = static_cast<float>(sum) * (query_scales[q] * row_scales[row]);
      }
      part.offer(make_key(ordered(value), static_cast<uint32_t>(row)));
    }
  }
};

void check(int64_t n_rows, int64_t query_width, int64_t width, const Index& index, Array<float, 2>& scores_QK,
           Array<int64_t, 2>& rows_QK, int64_t n_queries) {
  const int64_t k = static_cast<int64_t>(scores_QK.shape(1));
  const int64_t n = index ? static_cast<int64_t>(index->shape(0)) : n_rows;
  require(width == query_width, "queries and rows differ in width");
  require(n_rows < 0xffffffffLL, "too many rows");
  require(k >= 1 && k <= n, "k must lie between 1 and the number of candidate rows");
  require(static_cast<int64_t>(scores_QK.shape(0)) == n_queries && static_cast<int64_t>(rows_QK.shape(0)) == n_queries &&
              static_cast<int64_t>(rows_QK.shape(1)) == k,
          "the outputs do not fit the queries");
  for (int64_t i = 0; index && i < n; ++i) {
    require(index->data()[i] >= 0 && index->data()[i] < n_rows, "a candidate row does not exist");
  }
}

template <class Query, class Element>
void topk(Array<const Query, 2> q_QD, Array<const Element, 2> rows_ND, Index index, Array<float, 2> scores_QK,
          Array<int64_t, 2> rows_QK, Kernel Kernels::* kernel, const float* query_scales, const float* row_scales) {
  const int64_t n_rows = static_cast<int64_t>(rows_ND.shape(0)), width = static_cast<int64_t>(rows_ND.shape(1));
  const int64_t n_queries = static_cast<int64_t>(q_QD.shape(0));
  check(n_rows, static_cast<int64_t>(q_QD.shape(1)), width, index, scores_QK, rows_QK, n_queries);
  ScoreArgs args{};
  args.rows = rows_ND.data();
  args.index = index ? index->data() : nullptr;
  args.width = width;
  const TopK job{q_QD.data(), n_queries, width, sizeof(Query), query_scales, row_scales,
                 static_cast<int64_t>(scores_QK.shape(1))};
  nb::gil_scoped_release release;
  job.run(args, kernels().*kernel, index ? static_cast<int64_t>(index->shape(0)) : n_rows,
          std::max<size_t>(1, static_cast<size_t>(width) * sizeof(Element)), scores_QK.data(), rows_QK.data());
}

void topk_f32(Array<const float, 2> q_QD, Array<const float, 2> rows_ND, Index index, Array<float, 2> scores_QK,
              Array<int64_t, 2> rows_QK) {
  topk(q_QD, rows_ND, index, scores_QK, rows_QK, &Kernels::score_f32, nullptr, nullptr);
}

void topk_f16(Array<const float, 2> q_QD, Array<const uint16_t, 2> rows_ND, Index index, Array<float, 2> scores_QK,
              Array<int64_t, 2> rows_QK) {
  topk(q_QD, rows_ND, index, scores_QK, rows_QK, &Kernels::score_f16, nullptr, nullptr);
}

void topk_int8(Array<const int8_t, 2> q_QD, Array<const float, 1> q_scales_Q, Array<const int8_t, 2> rows_ND,
               Array<const float, 1> scales_N, Index index, Array<float, 2> scores_QK, Array<int64_t, 2> rows_QK) {
  require(q_scales_Q.shape(0) == q_QD.shape(0) && scales_N.shape(0) == rows_ND.shape(0), "one scale a row is needed");
  topk(q_QD, rows_ND, index, scores_QK, rows_QK, &Kernels::score_int8, q_scales_Q.data(), scales_N.data());
}

struct Scan {
  ScanArgs args;
  int64_t (*kernel)(const ScanArgs&, int64_t, int64_t, int32_t, int32_t*, uint32_t*);
  int64_t n;
  const uint8_t* allowed;  // or null

  void run(int64_t begin, int64_t end, Best& part) const {
    int32_t sums[16 * kScanBlocks];
    uint32_t rows[16 * kScanBlocks];
    for (int64_t block = begin; block < end; block += kScanBlocks) {
      const int32_t threshold = static_cast<int32_t>(static_cast<uint32_t>(part.floor() >> 32) ^ 0x80000000u);
      const int64_t hits = kernel(args, block, std::min(end, block + kScanBlocks), threshold, sums, rows);
      for (int64_t i = 0; i < hits; ++i) {
        if (rows[i] >= n || (allowed && !allowed[rows[i]])) continue;
        part.offer(make_key(static_cast<uint32_t>(sums[i]) ^ 0x80000000u, rows[i]));
      }
    }
  }

  // A floor that about 1.5 times `size` rows pass, from 128 places spread over all blocks; 0 where that is no gain.
  // The rank allows for four standard deviations of sampling; should fewer pass all the same, the scan is repeated.
  uint64_t guess(int64_t size) const {
    const int64_t n_blocks = (n + 15) / 16, stride = n_blocks / kSampleRuns;
    if (stride < 8 * kSampleBlocks) return 0;
    const double expected = static_cast<double>(size) * kSampleRuns * kSampleBlocks * 16 / static_cast<double>(n);
    Best sample(static_cast<int64_t>(expected + 4 * std::sqrt(expected) + 8));
    for (int64_t run = 0; run < kSampleRuns; ++run) this->run(run * stride, run * stride + kSampleBlocks, sample);
    sample.shrink();
    return sample.floor();
  }

  void all(uint64_t floor, SharedBest& found) const {
    const int64_t n_blocks = (n + 15) / 16;
    parallel_for((n_blocks + kChunkBlocks - 1) / kChunkBlocks, [&](int64_t chunk) {
      Best part(found.k());
      part.raise_floor(std::max(floor, found.floor()));
      run(chunk * kChunkBlocks, std::min(n_blocks, (chunk + 1) * kChunkBlocks), part);
      found.merge(part);
    });
  }
};

void shortlist(Array<const int8_t, 1> weights_P, Array<const uint8_t, 3> packed_BG64, int64_t n,
               std::optional<Array<const uint8_t, 1>> allowed_N, Array<int64_t, 1> rows_S) {
  const int64_t n_blocks = static_cast<int64_t>(packed_BG64.shape(0)), n_groups = static_cast<int64_t>(packed_BG64.shape(1));
  const int64_t size = static_cast<int64_t>(rows_S.shape(0));
  require(packed_BG64.shape(2) == 64 && static_cast<int64_t>(weights_P.shape(0)) == 8 * n_groups, "codes and weights differ");
  require(n >= 0 && n <= 16 * n_blocks && n < 0xffffffffLL, "the blocks do not hold that many rows");
  require(!allowed_N || static_cast<int64_t>(allowed_N->shape(0)) == n, "the filter needs one entry a row");
  require(size >= 1 && size <= n, "the shortlist is longer than the rows");
  const Scan scan{{packed_BG64.data(), weights_P.data(), n_groups}, kernels().scan_codes, n,
                  allowed_N ? allowed_N->data() : nullptr};
  nb::gil_scoped_release release;
  std::vector<uint64_t> keys;
  for (uint64_t floor = scan.guess(size);; floor = 0) {
    SharedBest found(size);
    scan.all(floor, found);
    keys = found.keys();
    if (floor == 0 || static_cast<int64_t>(keys.size()) == size) break;
  }
  require(static_cast<int64_t>(keys.size()) == size, "the filter allows fewer rows than the shortlist holds");
  for (int64_t i = 0; i < size; ++i) rows_S.data()[i] = row_of(keys[static_cast<size_t>(i)]);
  std::sort(rows_S.data(), rows_S.data() + size);
}

}  // namespace

void bind_score(nb::module_& m) {
  using nb::arg;
  m.def("score_topk_f32", &topk_f32, arg("q").noconvert(), arg("rows").noconvert(), arg("index").noconvert().none(),
        arg("scores_out").noconvert(), arg("rows_out").noconvert());
  m.def("score_topk_f16", &topk_f16, arg("q").noconvert(), arg("rows").noconvert(), arg("index").noconvert().none(),
        arg("scores_out").noconvert(), arg("rows_out").noconvert());
  m.def("score_topk_int8", &topk_int8, arg("q").noconvert(), arg("q_scales").noconvert(), arg("rows").noconvert(),
        arg("scales").noconvert(), arg("index").noconvert().none(), arg("scores_out").noconvert(),
        arg("rows_out").noconvert());
  m.def("score_shortlist", &shortlist, arg("weights").noconvert(), arg("codes").noconvert(), arg("n"),
        arg("allowed").noconvert().none(), arg("rows_out").noconvert());
}

}  // namespace kogata
