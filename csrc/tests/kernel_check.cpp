// Every kernel of every instruction set this machine runs, against plain double loops. For builds that Python tests cannot
// reach: sanitizers, and other architectures under an emulator. Prints a line per instruction set; exits with 1 on a miss.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "../attend.h"
#include "../dispatch.h"
#include "../elementwise.h"
#include "../linear.h"
#include "../pages.h"
#include "../pool.h"

using namespace kogata;

namespace {

std::mt19937 generator(1);

std::vector<float> normal(int64_t n) {
  std::normal_distribution<float> draw;
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& v : values) v = draw(generator);
  return values;
}

bool failed = false;

void expect(const char* what, double error, double limit) {
  if (error <= limit) return;
  std::printf("  %s: error %g, at most %g is accepted\n", what, error, limit);
  failed = true;
}

// Codes -1, 0 and 1 against quantised rows that have a gated unit behind them: exact integers, so a tight limit.
void check_ternary(WeightKind kind, int64_t group, int64_t t, int64_t k, int64_t n) {
  const auto x = normal(2 * t * k), raw = normal(n * k);
  const int64_t rows = padded_rows(n), groups = group ? k / group : 1;
  std::vector<int8_t> codes(static_cast<std::size_t>(n * k));
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = raw[i] > 0.5f ? 1 : raw[i] < -0.5f ? -1 : 0;
  std::vector<float> code_scales(static_cast<std::size_t>(n * groups), 0.5f), out(static_cast<std::size_t>(t * n), NAN);
  std::vector<uint8_t> data(static_cast<std::size_t>(packed_bytes(kind, n, k, group)));
  std::vector<float> scales(static_cast<std::size_t>(rows * groups));
  pack_codes(kind, codes.data(), code_scales.data(), k / groups, n, k, group, {data.data(), scales.data(), nullptr, nullptr});
  run_linear({kind, t, k, n, group, x.data(), Glu::relu2, nullptr, 0.0f, data.data(), scales.data(), nullptr, nullptr,
              nullptr, nullptr, out.data(), false});
  double worst = 0;
  std::vector<float> row(static_cast<std::size_t>(k));
  for (int64_t r = 0; r < t; ++r) {
    float top = 1e-5f;
    for (int64_t i = 0; i < k; ++i) {
      const float gate = std::max(x[static_cast<std::size_t>(r * 2 * k + i)], 0.0f);
      row[static_cast<std::size_t>(i)] = gate * gate * x[static_cast<std::size_t>(r * 2 * k + k + i)];
      top = std::max(top, std::fabs(row[static_cast<std::size_t>(i)]));
    }
    const float s = 127.0f / top;
    for (int64_t c = 0; c < n; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < k; ++i) sum += std::nearbyint(row[static_cast<std::size_t>(i)] * s) * codes[static_cast<std::size_t>(c * k + i)];
      const double error = std::fabs(out[static_cast<std::size_t>(r * n + c)] - 0.5 * sum / s);
      worst = error <= worst ? worst : error;
    }
  }
  expect("ternary", worst, 1e-4 * std::sqrt(static_cast<double>(k)));
}

void check_linear(WeightKind kind, int64_t group, int64_t t, int64_t k, int64_t n, double limit) {
  const auto x = normal(t * k), w = normal(n * k), bias = normal(n), residual = normal(t * n);
  const int64_t rows = padded_rows(n), depth = padded_depth(kind, k, group);
  const bool integers = kind == WeightKind::int8 || kind == WeightKind::int4;
  std::vector<uint8_t> data(static_cast<std::size_t>(packed_bytes(kind, n, k, group)));
  std::vector<float> scales(static_cast<std::size_t>(integers ? rows * (group ? depth / group : 1) : 0));
  std::vector<float> sums(static_cast<std::size_t>(integers && group ? rows : 0));
  std::vector<int32_t> code_sums(static_cast<std::size_t>(integers && !group ? rows : 0));
  pack_f32(kind, w.data(), n, k, group, {data.data(), scales.data(), code_sums.data(), sums.data()});
  std::vector<float> out(static_cast<std::size_t>(t * n), NAN);
  run_linear({kind, t, k, n, group, x.data(), Glu::none, nullptr, 0.0f, data.data(), scales.data(), code_sums.data(), sums.data(), bias.data(),
              residual.data(), out.data(), true});
  double worst = 0;
  for (int64_t r = 0; r < t; ++r) {
    for (int64_t c = 0; c < n; ++c) {
      double sum = bias[static_cast<std::size_t>(c)];
      for (int64_t i = 0; i < k; ++i) sum += double{x[static_cast<std::size_t>(r * k + i)]} * w[static_cast<std::size_t>(c * k + i)];
      const double want = 0.5 * sum * (1 + std::erf(sum / std::sqrt(2.0))) + residual[static_cast<std::size_t>(r * n + c)];
      const double error = std::fabs(out[static_cast<std::size_t>(r * n + c)] - want);
      worst = error <= worst ? worst : error;  // a NaN counts as worst
    }
  }
  expect("linear", worst / std::sqrt(static_cast<double>(k)), limit);
}

void check_attend(int64_t heads, int64_t d, bool reduced, double limit) {
  const std::vector<int32_t> cu{0, 1, 1, 14, 60};
  const int64_t t = cu.back(), width = heads * d;
  const auto qkv = normal(t * 3 * width);
  std::vector<float> out(static_cast<std::size_t>(t * width), NAN), lse(static_cast<std::size_t>(t * heads), NAN);
  run_attend({qkv.data(), out.data(), lse.data(), heads, d, reduced}, cu.data(), static_cast<int64_t>(cu.size()) - 1);
  double worst = 0;
  for (std::size_t s = 0; s + 1 < cu.size(); ++s) {
    for (int64_t q = cu[s]; q < cu[s + 1]; ++q) {
      for (int64_t h = 0; h < heads; ++h) {
        std::vector<double> mixed(static_cast<std::size_t>(d), 0.0);
        double total = 0;
        for (int64_t key = cu[s]; key < cu[s + 1]; ++key) {
          const float* a = qkv.data() + q * 3 * width + h * d;
          const float* b = qkv.data() + key * 3 * width + width + h * d;
          double score = 0;
          for (int64_t i = 0; i < d; ++i) score += double{a[i]} * b[i];
          const double weight = std::exp(score / std::sqrt(static_cast<double>(d)));
          total += weight;
          for (int64_t i = 0; i < d; ++i) mixed[static_cast<std::size_t>(i)] += weight * b[width + i];
        }
        for (int64_t i = 0; i < d; ++i) {
          const double error = std::fabs(out[static_cast<std::size_t>(q * width + h * d + i)] - mixed[static_cast<std::size_t>(i)] / total);
          worst = error <= worst ? worst : error;
        }
        const double error = std::fabs(lse[static_cast<std::size_t>(q * heads + h)] - std::log(total));
        worst = error <= worst ? worst : error;
      }
    }
  }
  expect("attention", worst, limit);
}

// Two sequences in scattered pages, with positions that do not turn, against loops over the keys that were given.
void check_pages(PageKind kind, int64_t heads, int64_t kv_heads, int64_t d, int64_t window, double limit) {
  const std::vector<int32_t> cu{0, 70, 200}, lengths{70, 130}, table{3, 0, -1, 1, 4, 2};
  const int64_t t = cu.back(), width = (heads + 2 * kv_heads) * d, bytes = page_bytes(kind, d), step = 3 * kv_heads * bytes;
  auto qkv = normal(t * width);
  const std::vector<float> cos(static_cast<std::size_t>(130 * d / 2), 1.0f), sin(cos.size(), 0.0f);
  std::vector<int32_t> positions, row_pages;
  for (std::size_t s = 0; s < 2; ++s) {
    for (int32_t i = 0; i < lengths[s]; ++i) {
      positions.push_back(i);
      row_pages.push_back(table[3 * s + static_cast<std::size_t>(i / 64)]);
    }
  }
  std::vector<uint8_t> pages(static_cast<std::size_t>(5 * step), 0);
  std::vector<float> out(static_cast<std::size_t>(t * heads * d), NAN), lse(static_cast<std::size_t>(t * heads), NAN);
  run_rotate_and_write({kind, qkv.data(), positions.data(), row_pages.data(), cos.data(), sin.data(), pages.data(), step,
                        bytes, heads, kv_heads, d, nullptr, nullptr, 0.0f}, t);
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  run_attend_pages({kind, qkv.data(), pages.data(), step, bytes, heads, kv_heads, d, scale, window, out.data(),
                    lse.data()}, table.data(), 3, cu.data(), lengths.data(), 2);
  double worst = 0;
  for (int64_t row = 0; row < t; ++row) {
    const int64_t start = row < cu[1] ? 0 : cu[1], oldest = window == 0 ? start : std::max(start, row - window + 1);
    for (int64_t h = 0; h < heads; ++h) {
      std::vector<double> mixed(static_cast<std::size_t>(d), 0.0);
      double total = 0;
      for (int64_t key = oldest; key <= row; ++key) {
        const float* q = qkv.data() + row * width + h * d;
        const float* k = qkv.data() + key * width + (heads + h / (heads / kv_heads)) * d;
        double score = 0;
        for (int64_t i = 0; i < d; ++i) score += double{q[i]} * k[i];
        const double weight = std::exp(score * scale);
        total += weight;
        for (int64_t i = 0; i < d; ++i) mixed[static_cast<std::size_t>(i)] += weight * k[kv_heads * d + i];
      }
      for (int64_t i = 0; i < d; ++i) {
        const auto at = static_cast<std::size_t>((row * heads + h) * d + i);
        const double error = std::fabs(out[at] - mixed[static_cast<std::size_t>(i)] / total);
        worst = error <= worst ? worst : error;
      }
      const double error = std::fabs(lse[static_cast<std::size_t>(row * heads + h)] - std::log(total));
      worst = error <= worst ? worst : error;
    }
  }
  expect("attention over pages", worst, limit);
}

void check_merge() {
  const auto a = normal(3 * 2 * 5), b = normal(3 * 2 * 5), lse_a = normal(3 * 2), lse_b = normal(3 * 2);
  std::vector<float> out(a.size(), NAN), lse(lse_a.size(), NAN);
  run_merge({a.data(), lse_a.data(), b.data(), lse_b.data(), 2, 5, out.data(), lse.data()}, 3);
  double worst = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double x = std::exp(double{lse_a[i / 5]}), y = std::exp(double{lse_b[i / 5]});
    worst = std::max(worst, std::fabs(out[i] - (a[i] * x + b[i] * y) / (x + y)));
  }
  expect("merge", worst, 1e-6);
}

void check_norm(int64_t t, int64_t width) {
  const auto x = normal(t * width), gain = normal(width), bias = normal(width);
  std::vector<float> out(x.size(), NAN);
  run_layer_norm({x.data(), nullptr, gain.data(), bias.data(), out.data(), width, 1e-5f}, t);
  double worst = 0;
  for (int64_t r = 0; r < t; ++r) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < width; ++i) mean += x[static_cast<std::size_t>(r * width + i)] / static_cast<double>(width);
    for (int64_t i = 0; i < width; ++i) variance += std::pow(x[static_cast<std::size_t>(r * width + i)] - mean, 2) / static_cast<double>(width);
    for (int64_t i = 0; i < width; ++i) {
      const auto at = static_cast<std::size_t>(r * width + i), c = static_cast<std::size_t>(i);
      const double error = std::fabs(out[at] - ((x[at] - mean) / std::sqrt(variance + 1e-5) * gain[c] + bias[c]));
      worst = error <= worst ? worst : error;
    }
  }
  expect("layer norm", worst, 1e-5);
}

}  // namespace

int main() {
  set_threads(2);
  for (const std::string& isa : supported_isas()) {
    select_isa(isa);
    std::printf("%s\n", isa.c_str());
    for (const auto [t, k, n] : {std::array<int64_t, 3>{1, 1, 1}, {7, 33, 17}, {40, 130, 49}}) {
      check_ternary(WeightKind::ternary, 0, t, k, n);
      check_ternary(WeightKind::trits, 0, t, k, n);
      check_ternary(WeightKind::ternary, 16, t, (k + 15) / 16 * 16, n);
      check_linear(WeightKind::f32, 0, t, k, n, 1e-5);
      check_linear(WeightKind::bf16, 0, t, k, n, 0.03);
      check_linear(WeightKind::int8, 0, t, k, n, 0.06);
      check_linear(WeightKind::int8, 32, t, k, n, 0.06);
      check_linear(WeightKind::int4, 32, t, k, n, 0.8);
      check_norm(t, k);
    }
    for (const auto [heads, kv_heads, d] : {std::array<int64_t, 3>{4, 2, 24}, {3, 3, 64}, {7, 1, 80}}) {
      for (const int64_t window : {0, 67}) {
        check_pages(PageKind::f32, heads, kv_heads, d, window, 1e-5);
        check_pages(PageKind::bf16, heads, kv_heads, d, window, 0.05);
        check_pages(PageKind::int8, heads, kv_heads, d, window, 0.1);
      }
    }
    check_merge();
    for (const bool reduced : {false, true}) {
      check_attend(2, 32, reduced, reduced ? 0.05 : 1e-5);
      check_attend(1, 5, reduced, reduced ? 0.05 : 1e-5);
    }
  }
  return failed ? 1 : 0;
}
