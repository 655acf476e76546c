#include "linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "pool.h"
#include "scratch.h"

namespace kogata {
namespace {

// Work is cut in blocks of this many row tiles and panels.
constexpr int64_t kTilesPerBlock = 8;
constexpr int64_t kPanelsPerBlock = 12;
// A single tile of rows waits for memory, which serves long stretches best, and for its last thread: each block is half
// of what would be a thread's share of the panels that are left, and no shorter than this.
constexpr int64_t kFewestPanels = 3;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t step_of(WeightKind kind) {
  switch (kind) {
    case WeightKind::f32: return 1;
    case WeightKind::bf16: return 2;
    case WeightKind::int8: return 4;
    case WeightKind::int4: return 8;
    case WeightKind::ternary: return 16;
    case WeightKind::trits: return 20;
  }
  return 1;
}

uint16_t round_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// One row of a quantised matrix: `value(k)` in units of its scale, rounded and clamped.
int8_t round_code(float value, int most) {
  return static_cast<int8_t>(std::clamp(std::nearbyint(value), static_cast<float>(-most), static_cast<float>(most)));
}

// A row of codes, whole steps of them.
void put_row(WeightKind kind, uint8_t* panel, int64_t column, const std::vector<int8_t>& codes) {
  const int64_t step = step_of(kind), n_steps = static_cast<int64_t>(codes.size()) / step;
  for (int64_t k = 0; k < n_steps; ++k) {
    uint8_t* cell = panel + k * 64 + column * 4;
    const int8_t* code = codes.data() + k * step;
    for (int64_t i = 0; i < 4; ++i) {
      if (kind == WeightKind::int8) {
        cell[i] = static_cast<uint8_t>(code[i]);
      } else if (kind == WeightKind::int4) {
        cell[i] = static_cast<uint8_t>((code[i] + 8) | (code[i + 4] + 8) << 4);
      } else if (kind == WeightKind::ternary) {
        cell[i] = static_cast<uint8_t>((code[i] + 1) | (code[i + 4] + 1) << 2 | (code[i + 8] + 1) << 4 | (code[i + 12] + 1) << 6);
      } else {
        cell[i] = static_cast<uint8_t>(121 + code[i] + 3 * code[i + 4] + 9 * code[i + 8] + 27 * code[i + 12] + 81 * code[i + 16]);
      }
    }
  }
}

// What put_row put there.
int take_code(WeightKind kind, const uint8_t* panel, int64_t column, int64_t k) {
  switch (kind) {
    case WeightKind::int8: return static_cast<int8_t>(panel[k / 4 * 64 + column * 4 + k % 4]);
    case WeightKind::ternary: return (panel[k / 16 * 64 + column * 4 + k % 4] >> (2 * (k % 16 / 4)) & 3) - 1;
    case WeightKind::trits: {
      constexpr int kPower[] = {1, 3, 9, 27, 81};
      return panel[k / 20 * 64 + column * 4 + k % 4] / kPower[k % 20 / 4] % 3 - 1;
    }
    default: {
      const int byte = panel[k / 8 * 64 + column * 4 + k % 4];
      return (k % 8 < 4 ? byte & 15 : byte >> 4) - 8;
    }
  }
}

float take_float(WeightKind kind, const uint8_t* panel, int64_t column, int64_t k) {
  float value;
  if (kind == WeightKind::f32) {
    std::memcpy(&value, panel + (k * kPanel + column) * 4, 4);
  } else {
    uint16_t half;
    std::memcpy(&half, panel + (k / 2 * 2 * kPanel + column * 2 + k % 2) * 2, 2);
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    std::memcpy(&value, &bits, 4);
  }
  return value;
}

// Fills one panel from `fill(n, codes, scales)`, which writes a row's n_in codes and its scales.
template <class Fill>
void pack_quantised(WeightKind kind, int64_t n_out, int64_t n_in, int64_t group, const Packed& to, Fill&& fill) {
  const int64_t depth = padded_depth(kind, n_in, group), n_groups = group == 0 ? 1 : depth / group;
  const int64_t panel_bytes = packed_bytes(kind, kPanel, n_in, group);
  const bool ternary = kind == WeightKind::ternary || kind == WeightKind::trits;
  parallel_for(ceil_div(n_out, kPanel), [&](int64_t p) {
    auto* panel = static_cast<uint8_t*>(to.weight) + p * panel_bytes;
    std::vector<int8_t> codes(static_cast<std::size_t>(depth), ternary ? -1 : 0);  // zero bits where there is no column
    std::vector<float> scales(static_cast<std::size_t>(n_groups));
    for (int64_t c = 0; c < kPanel; ++c) {
      const int64_t n = p * kPanel + c;
      if (n >= n_out) {
        std::fill_n(codes.begin(), n_in, int8_t{0});
        std::fill(scales.begin(), scales.end(), 0.0f);
      } else {
        fill(n, codes.data(), scales.data());
      }
      put_row(kind, panel, c, codes);
      int32_t code_sum = 0;
      float sum = 0.0f;
      for (int64_t g = 0; g < n_groups; ++g) {
        const int64_t stop = group == 0 ? n_in : std::min(n_in, (g + 1) * group);
        int32_t part = 0;
        for (int64_t k = g * group; k < stop; ++k) part += codes[static_cast<std::size_t>(k)];
        code_sum += part;
        const float scale = scales[static_cast<std::size_t>(g)];
        sum += scale * static_cast<float>(part);
        to.scales[(p * n_groups + g) * kPanel + c] = scale;
      }
      if (ternary) continue;
      if (group == 0) {
        to.code_sums[n] = code_sum;
      } else {
        to.sums[n] = sum;
      }
    }
  });
}

}  // namespace

int64_t padded_rows(int64_t n_out) { return ceil_div(n_out, kPanel) * kPanel; }

int64_t padded_depth(WeightKind kind, int64_t n_in, int64_t group) {
  const int64_t step = group == 0 ? step_of(kind) : group;
  return ceil_div(n_in, step) * step;
}

int64_t packed_bytes(WeightKind kind, int64_t n_out, int64_t n_in, int64_t group) {
  const int64_t values = padded_rows(n_out) * padded_depth(kind, n_in, group);
  switch (kind) {
    case WeightKind::f32: return values * 4;
    case WeightKind::bf16: return values * 2;
    case WeightKind::int8: return values;
    case WeightKind::int4: return values / 2;
    case WeightKind::ternary: return values / 4;
    case WeightKind::trits: return values / 5;
  }
  return 0;
}

void pack_f32(WeightKind kind, const float* weight, int64_t n_out, int64_t n_in, int64_t group, const Packed& to) {
  if (kind == WeightKind::int8 || kind == WeightKind::int4) {
    const int most = kind == WeightKind::int8 ? 127 : 7;
    pack_quantised(kind, n_out, n_in, group, to, [&](int64_t n, int8_t* codes, float* scales) {
      const float* row = weight + n * n_in;
      for (int64_t begin = 0, g = 0; begin < n_in; begin += group == 0 ? n_in : group, ++g) {
        const int64_t end = group == 0 ? n_in : std::min(n_in, begin + group);
        float largest = 0.0f;
        for (int64_t k = begin; k < end; ++k) largest = std::max(largest, std::fabs(row[k]));
        scales[g] = largest / static_cast<float>(most);
        const float inverse = scales[g] > 1e-37f ? 1.0f / scales[g] : 0.0f;
        for (int64_t k = begin; k < end; ++k) codes[k] = round_code(row[k] * inverse, most);
      }
    });
    return;
  }
  const int64_t step = step_of(kind), depth = padded_depth(kind, n_in, 0);
  parallel_for(ceil_div(n_out, kPanel), [&](int64_t p) {
    for (int64_t k = 0; k < depth; ++k) {
      for (int64_t c = 0; c < kPanel; ++c) {
        const int64_t n = p * kPanel + c;
        const float value = n < n_out && k < n_in ? weight[n * n_in + k] : 0.0f;
        const int64_t at = (p * depth + k / step * step) * kPanel + c * step + k % step;
        if (kind == WeightKind::f32) {
          static_cast<float*>(to.weight)[at] = value;
        } else {
          static_cast<uint16_t*>(to.weight)[at] = round_bf16(value);
        }
      }
    }
  });
}

void pack_codes(WeightKind kind, const int8_t* codes, const float* scales, int64_t source_group, int64_t n_out,
                int64_t n_in, int64_t group, const Packed& to) {
  const int64_t source_groups = n_in / source_group;
  const bool ternary = kind == WeightKind::ternary || kind == WeightKind::trits;
  pack_quantised(kind, n_out, n_in, group, to, [&](int64_t n, int8_t* row, float* row_scales) {
    const int8_t* source = codes + n * n_in;
    const float* source_scales = scales + n * source_groups;
    if (group != 0 || ternary) {
      std::memcpy(row, source, static_cast<std::size_t>(n_in));
      std::copy_n(source_scales, source_groups, row_scales);
      return;
    }
    float largest = 0.0f;
    for (int64_t g = 0; g < source_groups; ++g) {
      int top = 0;
      for (int64_t k = 0; k < source_group; ++k) top = std::max(top, std::abs(int{source[g * source_group + k]}));
      largest = std::max(largest, static_cast<float>(top) * std::fabs(source_scales[g]));
    }
    row_scales[0] = largest / 127.0f;
    const float inverse = row_scales[0] > 1e-37f ? 1.0f / row_scales[0] : 0.0f;
    for (int64_t g = 0; g < source_groups; ++g) {
      const float factor = source_scales[g] * inverse;
      for (int64_t k = g * source_group; k < (g + 1) * source_group; ++k) {
        row[k] = round_code(static_cast<float>(source[k]) * factor, 127);
      }
    }
  });
}

void run_take(const TakeCall& call) {
  const int64_t panel_bytes = packed_bytes(call.kind, kPanel, call.n_in, call.group);
  const int64_t n_groups = call.group == 0 ? 1 : padded_depth(call.kind, call.n_in, call.group) / call.group;
  const int64_t group = call.group == 0 ? call.n_in : call.group;
  const bool coded = call.kind != WeightKind::f32 && call.kind != WeightKind::bf16;
  parallel_for(ceil_div(call.n_rows, 16), [&](int64_t chunk) {
    for (int64_t r = chunk * 16; r < std::min(call.n_rows, chunk * 16 + 16); ++r) {
      const int64_t p = call.rows[r] / kPanel, column = call.rows[r] % kPanel;
      const uint8_t* panel = call.weight + p * panel_bytes;
      float* out = call.out + r * call.n_in;
      for (int64_t k = 0; k < call.n_in; ++k) {
        out[k] = coded ? static_cast<float>(take_code(call.kind, panel, column, k)) *
                             call.scales[(p * n_groups + k / group) * kPanel + column]
                       : take_float(call.kind, panel, column, k);
      }
      for (int64_t k = 0; k < call.n_in; ++k) out[k] *= call.factor;
    }
  });
}

void run_linear(const LinearCall& call) {
  thread_local Scratch packed_memory, scale_memory, zero_memory;
  const Kernels& table = kernels();
  // A few rows lie close together, so that a decoding step reads its activations from the nearest cache.
  const int64_t tile_rows = std::clamp<int64_t>(call.n_rows, 1, table.row_tile);
  const int64_t n_tiles = ceil_div(call.n_rows, tile_rows), rows = n_tiles * tile_rows;
  const int64_t depth = padded_depth(call.kind, call.n_in, call.group);
  const bool ternary = call.kind == WeightKind::ternary || call.kind == WeightKind::trits;
  const bool narrow = ternary || call.kind == WeightKind::int8 || call.kind == WeightKind::int4;
  const int64_t element = narrow ? 1 : call.kind == WeightKind::bf16 && table.bf16_dot ? 2 : 4;
  const int64_t sums = ternary && call.group != 0 ? depth / call.group : 1;
  PackRowsArgs pack{call.x, call.n_rows, call.n_in, depth, tile_rows, call.glu, call.gain, call.eps,
                    nullptr, nullptr,    nullptr,   call.group};
  pack.packed = packed_memory.get(static_cast<std::size_t>(rows * depth * element + 64));
  pack.scale = static_cast<float*>(scale_memory.get(static_cast<std::size_t>(rows) * sizeof(float)));
  pack.zero = static_cast<int32_t*>(zero_memory.get(static_cast<std::size_t>(rows * sums) * sizeof(int32_t)));

  LinearArgs args{call.n_rows, depth,          call.n_out,  tile_rows, pack.packed, pack.scale, pack.zero, call.weight,
                  call.scales, call.code_sums, call.sums,   call.group, call.bias,  call.residual, call.out, call.gelu};
  const auto [pack_rows, multiply] = [&]() -> std::pair<decltype(table.pack_rows_f32), decltype(table.linear_f32)> {
    switch (call.kind) {
      case WeightKind::f32: return {table.pack_rows_f32, table.linear_f32};
      case WeightKind::bf16: return {table.pack_rows_bf16, table.linear_bf16};
      case WeightKind::int8: return {table.pack_rows_int8, table.linear_int8};
      case WeightKind::int4: return {table.pack_rows_int8, table.linear_int4};
      case WeightKind::ternary: return {table.pack_rows_ternary, table.linear_ternary};
      case WeightKind::trits: return {table.pack_rows_ternary, table.linear_trits};
    }
    return {};
  }();

  const int64_t row_blocks = ceil_div(n_tiles, kTilesPerBlock);
  const int64_t n_panels = ceil_div(call.n_out, kPanel), panel_blocks = ceil_div(n_panels, kPanelsPerBlock);
  parallel_for(row_blocks, [&](int64_t block) {
    thread_local Scratch row_memory;
    auto* row = static_cast<float*>(row_memory.get(static_cast<std::size_t>(call.n_in) * sizeof(float)));
    pack_rows(pack, block * kTilesPerBlock, std::min(n_tiles, (block + 1) * kTilesPerBlock), row);
  });
  if (n_tiles == 1) {
    thread_local std::vector<int64_t> starts;
    starts.clear();
    for (int64_t at = 0; at < n_panels; at += std::max(kFewestPanels, (n_panels - at) / (2 * threads()))) {
      starts.push_back(at);
    }
    starts.push_back(n_panels);
    const int64_t* start = starts.data();  // this thread's, whichever thread runs a block
    parallel_for(static_cast<int64_t>(starts.size()) - 1,
                 [&](int64_t block) { multiply(args, 0, 1, start[block], start[block + 1]); });
    return;
  }
  parallel_for(row_blocks * panel_blocks, [&](int64_t block) {
    const int64_t tile = block / panel_blocks * kTilesPerBlock, panel = block % panel_blocks * kPanelsPerBlock;
    multiply(args, tile, std::min(n_tiles, tile + kTilesPerBlock), panel, std::min(n_panels, panel + kPanelsPerBlock));
  });
}

}  // namespace kogata
