// The sampler on every instruction set it is linked with, against plain loops: run under a sanitizer, and under qemu for
// aarch64. Logits and masks are exactly as long as they must be, so that reading past an end is seen.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "dispatch.h"
#include "pool.h"
#include "sample.h"

using namespace kogata;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::mt19937 rng(7);
int failures = 0;

int whole(int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); }

void expect(bool ok, const std::string& isa, const char* what, size_t n_vocab) {
  if (ok) return;
  ++failures;
  std::printf("%s: %s with %zu tokens\n", isa.c_str(), what, n_vocab);
}

struct Case {
  std::vector<float> logits;
  SampleRow row{1.0, 0, 1.0, 0.0, 1.0f, 0.0f, 0.0f, -1, 0, 0, 0, nullptr, nullptr, 0, nullptr, nullptr, 0, nullptr};
  std::vector<int32_t> top_ids;
  std::vector<float> top_logprobs;
  float logprob = 0.0f;

  int32_t run() {
    const auto n_top = static_cast<size_t>(std::max<int64_t>(row.n_top, 0));
    top_ids.assign(n_top, -7);
    top_logprobs.assign(n_top, 0.0f);
    int32_t token = 0;
    const SampleResult result{&token, &logprob, top_ids.data(), top_logprobs.data()};
    run_sample(logits.data(), 1, static_cast<int64_t>(logits.size()), &row, &result);
    return token;
  }
};

// Whether u lies at `token` in the distribution, computed by sorting everything.
bool fits(const Case& c, const std::vector<float>& z, int32_t token) {
  std::vector<int32_t> order(z.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return z[a] > z[b]; });
  std::vector<double> weights;
  for (int32_t id : order) weights.push_back(std::exp((double{z[id]} - double{z[order[0]]}) / c.row.temperature));
  if (c.row.top_k > 0 && c.row.top_k < static_cast<int64_t>(weights.size())) weights.resize(c.row.top_k);
  const auto [seed, position] = std::pair(c.row.seed, c.row.position);
  const auto words = philox({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0},
                            {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const double u = static_cast<double>((uint64_t{words[0]} << 32 | words[1]) >> 11) * 0x1p-53;
  for (double moved : {1.0, 1.0 - 1e-5, 1.0 + 1e-5}) {  // a border this close may lie on either side
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    double kept = 0.0;
    size_t n = 0;
    const bool all = c.row.top_p == 1.0;
    while (n < weights.size() && (all || n == 0 || kept < moved * c.row.top_p * total)) kept += weights[n++];
    while (n > 1 && weights[n - 1] < moved * c.row.min_p) kept -= weights[--n];
    double end = 0.0;
    for (size_t i = 0; i < n; ++i) {
      end += weights[i] / kept;
      if (order[i] == token && end - weights[i] / kept - 3e-6 <= u && u <= end + 3e-6) return true;
    }
  }
  return false;
}

void check(const std::string& isa, size_t n_vocab) {
  Case c;
  std::normal_distribution<float> normal;
  const float spread = std::vector<float>{0.0f, 0.01f, 1.0f, 8.0f}[whole(0, 3)];
  for (size_t i = 0; i < n_vocab; ++i) c.logits.push_back(whole(0, 9) ? spread * normal(rng) : std::round(normal(rng)));
  std::vector<uint32_t> mask;
  std::vector<float> z = c.logits;
  if (whole(0, 2) == 0) {
    for (size_t word = 0; word < (n_vocab + 31) / 32; ++word) mask.push_back(whole(0, 1) ? rng() : ~uint32_t{0});
    mask[0] |= 1;
    c.row.mask = mask.data();
    for (size_t i = 0; i < n_vocab; ++i) {
      if (!(mask[i / 32] >> (i % 32) & 1u)) z[i] = -kInfinity;
    }
  }
  c.row.temperature = std::vector<double>{0.3, 1.0, 3.0}[whole(0, 2)];
  c.row.top_k = std::vector<int64_t>{0, 0, 1, 9, 400}[whole(0, 4)];
  c.row.top_p = std::vector<double>{1.0, 1.0, 0.0, 0.5, 0.97}[whole(0, 4)];
  c.row.min_p = std::vector<double>{0.0, 0.0, 0.02, 1.0}[whole(0, 3)];
  c.row.seed = static_cast<uint64_t>(rng()) << 32 | rng();
  c.row.position = static_cast<uint64_t>(rng()) << 32 | rng();
  c.row.n_top = whole(-1, 20);
  const int32_t token = c.run();
  expect(token >= 0 && fits(c, z, token), isa, "a token does not fit its draw", n_vocab);
  double sum = 0.0;
  for (float x : c.logits) sum += std::exp(double{x});
  if (c.row.n_top >= 0) {
    expect(std::abs(c.logprob - (c.logits[token] - std::log(sum))) < 1e-5, isa, "a log-probability is wrong", n_vocab);
  }
  std::vector<int32_t> best(n_vocab);
  std::iota(best.begin(), best.end(), 0);
  std::stable_sort(best.begin(), best.end(), [&](int32_t a, int32_t b) { return c.logits[a] > c.logits[b]; });
  for (size_t i = 0; i < c.top_ids.size(); ++i) {
    expect(c.top_ids[i] == (i < n_vocab ? best[i] : -1), isa, "the best tokens are wrong", n_vocab);
  }
  c.row.temperature = 0.0;
  expect(c.run() == std::max_element(z.begin(), z.end()) - z.begin(), isa, "greedy is not the first highest", n_vocab);
  c.logits[whole(0, static_cast<int>(n_vocab) - 1)] = whole(0, 1) ? std::nanf("") : kInfinity;
  expect(c.run() == kNotNumbers, isa, "NaN or infinity went unseen", n_vocab);
  c.logits.assign(n_vocab, -kInfinity);
  expect(c.run() == kNoLogits, isa, "-inf everywhere went unseen", n_vocab);
}

}  // namespace

int main() {
  set_threads(1);
  for (const std::string& isa : supported_isas()) {
    select_isa(isa);
    for (int trial = 0; trial < 400; ++trial) check(isa, static_cast<size_t>(whole(1, trial % 4 ? 300 : 4000)));
    std::printf("%s\n", isa.c_str());
  }
  return failures != 0;
}
