// The sampler: penalties, bias and mask; temperature, top-k, top-p, min-p; one draw.
//
// Tokens are ordered by logit, highest first, equal ones by lowest id. Each truncation keeps a beginning of that order, and
// the draw is a point in what is kept: the token at which the running sum of weights reaches it. So all of them are one
// question (`reach`), and it is answered without sorting: weights are summed by bins of the logit, and only the tokens of
// the bin in which the sum is reached are looked at further.
#include "sample.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <exception>
#include <functional>
#include <limits>
#include <mutex>
#include <numeric>
#include <vector>

#include "dispatch.h"
#include "pool.h"
#include "scratch.h"

namespace kogata {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowest = std::numeric_limits<float>::lowest();
constexpr int64_t kBins = 1024;
constexpr int64_t kFew = 48;     // so many are sorted
constexpr int64_t kFirst = 256;  // so many at least are looked at first: mostly they hold the share that counts

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Place {
  float z;
  int32_t id;
};

bool before(const Place& a, const Place& b) { return a.z > b.z || (a.z == b.z && a.id < b.id); }

// Some of a row's tokens, in the order of their ids.
struct Tokens {
  float* z;
  float* weight;
  int32_t* id;
  int64_t n = 0;

  // Keeps the tokens up to `last` in order that have at least the weight `least`.
  void keep_until(const Place& last, float least) {
    const int64_t all = n, above = std::upper_bound(id, id + n, last.id) - id;  // from here on equals of `last` come later
    n = 0;
    add_own(0, above, [&](int64_t i) { return (z[i] >= last.z) & (weight[i] >= least); });
    add_own(above, all, [&](int64_t i) { return (z[i] > last.z) & (weight[i] >= least); });
  }

  double mass() const {
    double lanes[8] = {};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
      for (int j = 0; j < 8; ++j) lanes[j] += static_cast<double>(weight[i + j]);
    }
    for (; i < n; ++i) lanes[0] += static_cast<double>(weight[i]);
    return std::accumulate(lanes, lanes + 8, 0.0);
  }

 private:
  // Adds what is good of [begin, end), tokens that stood here before and not in front of the place of the next one. No
  // branch: which way it would go is as good as random.
  template <class Good>
  void add_own(int64_t begin, int64_t end, Good&& good) {
    int64_t at = n;
    for (int64_t i = begin; i < end; ++i) {
      const bool good_i = good(i);
      z[at] = z[i];
      weight[at] = weight[i];
      id[at] = id[i];
      at += good_i;
    }
    n = at;
  }
};

struct Range {
  float low, high;
};

Range range_of(const float* x, int64_t n) {
  Range range{x[0], x[0]};
  for (int64_t i = 1; i < n; ++i) range = {std::min(range.low, x[i]), std::max(range.high, x[i])};
  return range;
}

struct Weighted {
  Place place;
  float weight;
};

// Where the weights of places that stand in order add up to `target`: the last one where rounding leaves them short of it.
template <class At>
Place walk(int64_t n, double target, At&& at) {
  int64_t i = 0;
  for (; i < n - 1 && static_cast<double>(at(i).weight) < target; ++i) target -= static_cast<double>(at(i).weight);
  return at(i).place;
}

// A sampler's memory for one row: one a thread.
class Workspace {
 public:
  void fit(int64_t n_vocab) {
    const auto n = static_cast<size_t>(ceil_div(n_vocab, 16) * 16), blocks = static_cast<size_t>(ceil_div(n_vocab, kSampleBlock));
    auto* at = static_cast<std::byte*>(memory_.get(8 * n * sizeof(float) + 2 * blocks * sizeof(float)));
    const auto next = [&at]<class T>(size_t count, T*& to) {
      to = reinterpret_cast<T*>(at);
      at += count * sizeof(T);
    };
    next(n, changed);
    for (Tokens* tokens : {&chosen, &rest_}) {
      next(n, tokens->z);
      next(n, tokens->weight);
      next(n, tokens->id);
    }
    next(blocks, maxima);
    next(blocks, ranked_);
    next(n, bin_);
  }

  // The highest logit; NaN where any is NaN or infinite, -inf where all are -inf.
  float highest(const float* z, int64_t n_vocab) {
    kernels().block_max(z, n_vocab, maxima);
    top_ = -kInfinity;
    for (int64_t block = 0; block < ceil_div(n_vocab, kSampleBlock) && !std::isnan(top_); ++block) {
      if (!(maxima[block] <= top_)) top_ = maxima[block];
    }
    return top_;
  }

  // The token of `chosen` at which the weights, added from the highest logit down, reach `target`.
  Place reach(double target) {
    const Tokens* tokens = &chosen;
    for (Range range = range_; tokens->n > kFew; range = range_of(tokens->z, tokens->n)) {
      if (range.low == range.high) {  // then the order is that of their ids
        return walk(tokens->n, target, [&](int64_t i) { return Weighted{{tokens->z[i], tokens->id[i]}, tokens->weight[i]}; });
      }
      const double top = range.high, bins = static_cast<double>(kBins) / (top - static_cast<double>(range.low));
      double sums[kBins] = {};
      for (int64_t i = 0; i < tokens->n; ++i) {
        const auto bin = static_cast<int32_t>((top - static_cast<double>(tokens->z[i])) * bins);
        bin_[i] = std::min<int32_t>(bin, kBins - 1);
        sums[bin_[i]] += static_cast<double>(tokens->weight[i]);
      }
      int32_t border = 0;
      for (int32_t bin = 0; bin < kBins; ++bin) {
        if (sums[bin] == 0.0) continue;
        border = bin;
        if (sums[bin] >= target) break;
        target -= sums[bin];
      }
      int64_t taken = 0;
      for (int64_t i = 0; i < tokens->n; ++i) {
        if (bin_[i] != border) continue;
        rest_.z[taken] = tokens->z[i];
        rest_.weight[taken] = tokens->weight[i];
        rest_.id[taken++] = tokens->id[i];
      }
      rest_.n = taken;
      tokens = &rest_;
    }
    Weighted few[kFew];
    for (int64_t i = 0; i < tokens->n; ++i) few[i] = {{tokens->z[i], tokens->id[i]}, tokens->weight[i]};
    std::sort(few, few + tokens->n, [](const Weighted& a, const Weighted& b) { return before(a.place, b.place); });
    return walk(tokens->n, target, [&](int64_t i) { return few[i]; });
  }

  // A logit that the k highest tokens reach: k blocks do, so the k-th highest of their maxima is one.
  float floor_of_best(int64_t n_vocab, int64_t k) {
    const int64_t blocks = ceil_div(n_vocab, kSampleBlock);
    if (k > blocks) return kLowest;
    std::copy(maxima, maxima + blocks, ranked_);
    std::nth_element(ranked_, ranked_ + (k - 1), ranked_ + blocks, std::greater<>());
    return std::max(kLowest, ranked_[k - 1]);
  }

  // Chooses the k highest of the tokens whose logit is not -inf.
  void choose_best(const float* z, int64_t n_vocab, int64_t k) {
    choose_from(z, n_vocab, floor_of_best(n_vocab, k));
    if (chosen.n <= k) return;
    std::fill(chosen.weight, chosen.weight + chosen.n, 1.0f);
    keep_until(reach(static_cast<double>(k)), 1.0f);
  }

  // Chooses the tokens whose logit is `floor` or higher.
  void choose_from(const float* z, int64_t n_vocab, float floor) {
    int64_t n = 0;
    for (int64_t begin = 0; begin < n_vocab; begin += kSampleBlock) {
      if (maxima[begin / kSampleBlock] < floor) continue;
      const int64_t end = std::min(n_vocab, begin + kSampleBlock);
      for (int64_t i = begin; i < end; ++i) {
        chosen.z[n] = z[i];
        chosen.id[n] = static_cast<int32_t>(i);
        n += z[i] >= floor;
      }
    }
    chosen.n = n;
    range_ = {floor, top_};
  }

  // Keeps the chosen tokens up to `last` in order that have at least the weight `least`.
  void keep_until(const Place& last, float least) {
    chosen.keep_until(last, least);
    range_.low = std::max(range_.low, last.z);
  }

  float* changed;  // a row's logits after penalties, bias and mask
  Tokens chosen;
  float* maxima;  // of every block of the logits in hand

 private:
  Scratch memory_;
  float top_;     // of the logits in hand
  Range range_;   // in which the chosen tokens' logits lie
  Tokens rest_;
  float* ranked_;
  int32_t* bin_;
};

bool is_penalised(const SampleRow& row) {
  return row.n_seen > 0 && (row.repetition != 1.0f || row.presence != 0.0f || row.frequency != 0.0f);
}

// The bits of a word of the mask; beyond the vocabulary they say nothing and count as set.
uint32_t mask_word(const SampleRow& row, int64_t word, int64_t n_vocab) {
  const int64_t left = n_vocab - 32 * word;
  return left >= 32 ? row.mask[word] : row.mask[word] | ~uint32_t{0} << left;
}

bool is_masked(const SampleRow& row, int64_t n_vocab) {
  if (row.mask == nullptr) return false;
  uint32_t all = ~uint32_t{0};
  for (int64_t word = 0; word < ceil_div(n_vocab, 32); ++word) all &= mask_word(row, word, n_vocab);
  return all != ~uint32_t{0};
}

void change(const SampleRow& row, int64_t n_vocab, float* z) {
  if (is_penalised(row)) {
    for (int64_t i = 0; i < row.n_seen; ++i) {
      float& x = z[row.seen[i]];
      x = x > 0.0f ? x / row.repetition : x * row.repetition;
      if (row.seen_counts[i] == 0) continue;
      x -= row.frequency * static_cast<float>(row.seen_counts[i]);
      x -= row.presence;
    }
  }
  for (int64_t i = 0; i < row.n_biases; ++i) z[row.bias_ids[i]] += row.biases[i];
  if (row.mask == nullptr) return;
  for (int64_t word = 0; word < ceil_div(n_vocab, 32); ++word) {
    const uint32_t bits = mask_word(row, word, n_vocab);
    if (bits == ~uint32_t{0}) continue;
    const int64_t end = std::min(n_vocab, 32 * word + 32);
    for (int64_t i = 32 * word; i < end; ++i) z[i] = bits >> (i % 32) & 1u ? z[i] : -kInfinity;
  }
}

// In [0, 1): the top 53 of 64 random bits.
double uniform(const SampleRow& row) {
  const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
  const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  const auto words = philox({low(row.position), high(row.position), low(row.stream), high(row.stream)},
                            {low(row.seed), high(row.seed)});
  const uint64_t bits = static_cast<uint64_t>(words[0]) << 32 | words[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

int32_t greedy(const float* z, int64_t n_vocab, float top, const float* maxima) {
  int64_t block = 0;
  while (maxima[block] != top) ++block;
  const float* end = z + std::min(n_vocab, (block + 1) * kSampleBlock);
  return static_cast<int32_t>(std::find(z + block * kSampleBlock, end, top) - z);
}

int32_t draw(const SampleRow& row, const float* z, int64_t n_vocab, float top, Workspace& work) {
  const float scale = static_cast<float>(std::min(1.0 / row.temperature, static_cast<double>(-kLowest)));
  const double u = uniform(row);
  const auto floor_of = [&](double weight) {  // the logit of half that weight: the other half is for rounding
    return std::max(kLowest, static_cast<float>(static_cast<double>(top) + row.temperature * std::log(weight / 2.0)));
  };
  const bool is_best = row.top_k > 0 && row.top_k < n_vocab, is_whole = !is_best && row.top_p == 1.0 && row.min_p == 0.0;
  Tokens& chosen = work.chosen;
  double mass = 0.0;
  if (is_best) {
    work.choose_best(z, n_vocab, row.top_k);
  } else if (row.top_p == 1.0 && row.min_p > 0.0) {
    work.choose_from(z, n_vocab, floor_of(row.min_p));
  } else {
    mass = kernels().sum_exp(z, n_vocab, top, scale, nullptr);
    const double share = is_whole ? u : row.top_p;
    work.choose_from(z, n_vocab, work.floor_of_best(n_vocab, kFirst));
    if (kernels().sum_exp(chosen.z, chosen.n, top, scale, chosen.weight) < share * mass) {
      // Lighter tokens than this together weigh less than what lies beyond the share, so they cannot hold its end.
      work.choose_from(z, n_vocab, floor_of((1.0 - share) * mass / static_cast<double>(n_vocab)));
    }
  }
  kernels().sum_exp(chosen.z, chosen.n, top, scale, chosen.weight);
  if (!is_whole) {
    Place last{-kInfinity, 0};
    if (row.top_p < 1.0) last = work.reach(row.top_p * (is_best ? chosen.mass() : mass));
    work.keep_until(last, std::max(static_cast<float>(row.min_p), std::numeric_limits<float>::min()));
    mass = chosen.mass();
  }
  return work.reach(u * mass).id;
}

// Log-probabilities of the logits as given.
struct LogSoftmax {
  double top, log_sum;
  float operator()(float logit) const { return static_cast<float>(static_cast<double>(logit) - top - log_sum); }
};

void report_best(int64_t k, const float* logits, int64_t n_vocab, const LogSoftmax& logprob, Workspace& work,
                 const SampleResult& result) {
  work.choose_best(logits, n_vocab, k);
  std::vector<Place> best;
  for (int64_t i = 0; i < work.chosen.n; ++i) best.push_back({work.chosen.z[i], work.chosen.id[i]});
  std::sort(best.begin(), best.end(), before);
  for (int64_t i = 0; i < k; ++i) {
    const bool is_there = i < work.chosen.n;
    result.top_ids[i] = is_there ? best[static_cast<size_t>(i)].id : -1;
    result.top_logprobs[i] = is_there ? logprob(best[static_cast<size_t>(i)].z) : -kInfinity;
  }
}

// The token, or why there is none.
int32_t sample(const float* logits, int64_t n_vocab, const SampleRow& row, Workspace& work, const SampleResult& result) {
  float top = work.highest(logits, n_vocab);
  if (std::isnan(top)) return kNotNumbers;
  if (top == -kInfinity) return kNoLogits;
  LogSoftmax logprob{top, 0.0};
  if (row.n_top >= 0) logprob.log_sum = std::log(kernels().sum_exp(logits, n_vocab, top, 1.0f, nullptr));
  if (row.n_top > 0) report_best(row.n_top, logits, n_vocab, logprob, work, result);
  const float* z = logits;
  if (is_penalised(row) || row.n_biases > 0 || is_masked(row, n_vocab)) {
    std::copy(logits, logits + n_vocab, work.changed);
    change(row, n_vocab, work.changed);
    z = work.changed;
    top = work.highest(z, n_vocab);
    if (std::isnan(top)) return kNotNumbers;
    if (top == -kInfinity) return kNothingAllowed;
  }
  const int32_t token = row.temperature == 0.0 ? greedy(z, n_vocab, top, work.maxima) : draw(row, z, n_vocab, top, work);
  if (row.n_top >= 0) *result.logprob = logprob(logits[token]);
  return token;
}

}  // namespace

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = uint64_t{0xD2511F53} * counter[0], second = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(second >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(second),
               static_cast<uint32_t>(first >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(first)};
    key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
  }
  return counter;
}

void run_sample(const float* logits_BV, int64_t n_rows, int64_t n_vocab, const SampleRow* rows, const SampleResult* results) {
  std::mutex mutex;
  std::exception_ptr error;
  parallel_for(n_rows, [&](int64_t b) {
    try {  // memory may run out; an exception must not leave a pool thread
      thread_local Workspace work;
      work.fit(n_vocab);
      *results[b].token = sample(logits_BV + b * n_vocab, n_vocab, rows[b], work, results[b]);
    } catch (...) {
      std::lock_guard lock(mutex);
      error = std::current_exception();
    }
  });
  if (error) std::rethrow_exception(error);
}

}  // namespace kogata
