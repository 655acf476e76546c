// Bindings of the machine's measures.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <utility>
#include <vector>

#include "bindings.h"
#include "dispatch.h"
#include "pool.h"

namespace kogata {
namespace {

double peak(const std::string& kind, int64_t iterations) {
  const Kernels& table = kernels();
  require(kind == "f32" || kind == "bf16" || kind == "int8", "kind must be f32, bf16 or int8");
  require(iterations >= 1, "iterations must be positive");
  nb::gil_scoped_release release;
  return kind == "f32"    ? table.peak_f32(iterations)
         : kind == "bf16" ? table.peak_bf16(iterations)
                          : table.peak_int8(iterations);
}

// Reads every array once, over all threads, a megabyte at a time; what is less than four bytes at an end is left out.
void read(const std::vector<Array<const uint8_t, 1>>& arrays) {
  constexpr int64_t kChunk = int64_t{1} << 20;
  std::vector<std::pair<const uint8_t*, int64_t>> chunks;
  for (const auto& array : arrays) {
    const auto n = static_cast<int64_t>(array.shape(0));
    for (int64_t begin = 0; begin < n; begin += kChunk) {
      chunks.emplace_back(array.data() + begin, begin + kChunk < n ? kChunk : n - begin);
    }
  }
  const Kernels& table = kernels();
  nb::gil_scoped_release release;
  parallel_for(static_cast<int64_t>(chunks.size()), [&](int64_t i) {
    const auto [data, n] = chunks[static_cast<size_t>(i)];
    volatile float sink = table.read(reinterpret_cast<const int32_t*>(data), n / 4);
    (void)sink;
  });
}

}  // namespace

void bind_measure(nb::module_& m) {
  m.def("peak", &peak, nb::arg("kind"), nb::arg("iterations"));
  m.def("read", &read, nb::arg("arrays"));
}

}  // namespace kogata
