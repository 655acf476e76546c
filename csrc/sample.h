// Choosing the next token of every row of logits.
#pragma once

#include <array>
#include <cstdint>

namespace kogata {

// Philox 4x32 with ten rounds: a random number for every counter and key, with no state between them.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Ids are checked by the caller, numbers too: temperature >= 0, top_k >= 0 (0: all), top_p and min_p in 0..1,
// repetition > 0, all finite.
struct SampleRow {
  double temperature;  // 0: the highest, of equals the lowest id
  int64_t top_k;
  double top_p, min_p;
  float repetition, presence, frequency;
  int64_t n_top;  // how many log-probabilities to report beside the chosen token's; -1: not even that one
  uint64_t seed, stream, position;
  const int32_t* seen;         // n_seen tokens of prompt and output, each once
  const int32_t* seen_counts;  // how often each stands in the output
  int64_t n_seen;
  const int32_t* bias_ids;
  const float* biases;
  int64_t n_biases;
  const uint32_t* mask;  // a bit for every token that may come, or null: all
};

enum : int32_t { kNotNumbers = -1, kNoLogits = -2, kNothingAllowed = -3 };  // in place of a token

struct SampleResult {
  int32_t* token;
  float* logprob;      // of the logits as given, NaN where it is not asked for
  int32_t* top_ids;    // n_top of them, highest first; -1 where the vocabulary ends
  float* top_logprobs;
};

// Every row by itself: nothing of a result depends on the other rows or on the number of threads.
void run_sample(const float* logits_BV, int64_t n_rows, int64_t n_vocab, const SampleRow* rows, const SampleResult* results);

}  // namespace kogata
