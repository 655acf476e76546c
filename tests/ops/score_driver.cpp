// Score kernels of every table it is linked with, against plain loops: run under a sanitizer, and under qemu for aarch64.
// Every buffer is exactly as long as it must be, so that reading past an end is seen.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "kernels.h"

using namespace kogata;

namespace {

std::mt19937 rng(7);
int failures = 0;

int whole(int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); }

void expect(bool ok, const Kernels& table, const char* what, int64_t n, int64_t width) {
  if (ok) return;
  ++failures;
  std::printf("%s: %s differs at %lld rows of %lld\n", table.name, what, (long long)n, (long long)width);
}

// Whole numbers up to 2048 are exact in f16: sign, exponent, mantissa by hand.
uint16_t half(int value) {
  if (value == 0) return 0;
  const int magnitude = std::abs(value), exponent = std::ilogb(magnitude);
  return static_cast<uint16_t>((value < 0 ? 0x8000 : 0) | (exponent + 15) << 10 | ((magnitude << (10 - exponent)) & 0x3ff));
}

void check_rows(const Kernels& table, int64_t n, int64_t width) {
  std::vector<float> query(width), rows(n * width), out(n);
  std::vector<uint16_t> halves(n * width);
  std::vector<int8_t> query8(width), rows8(n * width);
  std::vector<int32_t> out8(n);
  std::vector<int64_t> index(n);
  for (int64_t i = 0; i < width; ++i) {
    query[i] = whole(-20, 20);
    query8[i] = static_cast<int8_t>(whole(0, 3) ? whole(-127, 127) : 127);
  }
  for (int64_t i = 0; i < n * width; ++i) {
    const int value = whole(-20, 20);
    rows[i] = value;
    halves[i] = half(value);
    rows8[i] = static_cast<int8_t>(whole(0, 3) ? whole(-128, 127) : -128);
  }
  for (int64_t i = 0; i < n; ++i) index[i] = whole(0, static_cast<int>(n) - 1);
  for (const int64_t* chosen : {static_cast<const int64_t*>(nullptr), static_cast<const int64_t*>(index.data())}) {
    const int64_t begin = n / 3;
    std::vector<float> wanted(n - begin);
    std::vector<int32_t> wanted8(n - begin);
    for (int64_t i = begin; i < n; ++i) {
      const int64_t row = chosen ? chosen[i] : i;
      double sum = 0;
      int32_t sum8 = 0;
      for (int64_t j = 0; j < width; ++j) {
        sum += static_cast<double>(query[j]) * rows[row * width + j];
        sum8 += query8[j] * rows8[row * width + j];
      }
      wanted[i - begin] = static_cast<float>(sum);
      wanted8[i - begin] = sum8;
    }
    out.assign(n - begin, -1);
    table.score_f32({query.data(), rows.data(), chosen, width, out.data()}, begin, n);
    expect(out == wanted, table, "f32", n, width);
    out.assign(n - begin, -1);
    table.score_f16({query.data(), halves.data(), chosen, width, out.data()}, begin, n);
    expect(out == wanted, table, "f16", n, width);
    out8.assign(n - begin, -1);
    table.score_int8({query8.data(), rows8.data(), chosen, width, out8.data()}, begin, n);
    expect(out8 == wanted8, table, "int8", n, width);
  }
}

void check_scan(const Kernels& table, int64_t n_blocks, int64_t n_groups) {
  std::vector<uint8_t> codes(n_blocks * n_groups * 64);
  std::vector<int8_t> query(8 * n_groups);
  for (uint8_t& byte : codes) byte = static_cast<uint8_t>(whole(0, 3) ? whole(0, 255) : 255);
  for (int8_t& weight : query) weight = static_cast<int8_t>(whole(0, 3) ? whole(-127, 127) : 127);
  std::vector<int32_t> sums(16 * n_blocks), wanted(16 * n_blocks);
  std::vector<uint32_t> rows(16 * n_blocks);
  for (int64_t row = 0; row < 16 * n_blocks; ++row) {
    for (int64_t j = 0; j < 8 * n_groups; ++j) {
      const uint8_t byte = codes[((row / 16) * n_groups + j / 8) * 64 + 4 * (row % 16) + j % 4];
      wanted[row] += query[j] * (j % 8 >= 4 ? byte >> 4 : byte & 15);
    }
  }
  for (const int32_t threshold : {INT32_MIN, 0, wanted[wanted.size() / 2], INT32_MAX}) {
    const int64_t hits = table.scan_codes({codes.data(), query.data(), n_groups}, 0, n_blocks, threshold, sums.data(), rows.data());
    int64_t hit = 0;
    bool ok = true;
    for (int64_t row = 0; row < 16 * n_blocks && ok; ++row) {
      if (wanted[row] < threshold) continue;
      ok = hit < hits && rows[hit] == row && sums[hit] == wanted[row];
      ++hit;
    }
    expect(ok && hit == hits, table, "scan", 16 * n_blocks, 8 * n_groups);
  }
}

}  // namespace

int main() {
  std::vector<const Kernels*> tables{&kernels_scalar};
#if defined(__aarch64__)
  tables.push_back(&kernels_neon);
  tables.push_back(&kernels_neondot);
#else
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) tables.push_back(&kernels_avx2);
  if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw")) tables.push_back(&kernels_avx512vnni);
#endif
  for (const Kernels* table : tables) {
    for (const int64_t width : {1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 384, 385}) {
      for (const int64_t n : {1, 2, 5, 9}) check_rows(*table, n, width);
    }
    for (const int64_t groups : {1, 2, 3, 24, 256}) {
      for (const int64_t blocks : {1, 2, 5}) check_scan(*table, blocks, groups);
    }
    std::printf("%s\n", table->name);
  }
  return failures != 0;
}
