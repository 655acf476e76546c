// Bindings of the machine's measures.
#include <nanobind/stl/string.h>

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

// Reads x once, over all threads.
float read(Array<const float, 1> x) {
  const auto n = static_cast<int64_t>(x.shape(0));
  constexpr int64_t kChunk = int64_t{1} << 18;
  const Kernels& table = kernels();
  nb::gil_scoped_release release;
  parallel_for((n + kChunk - 1) / kChunk, [&](int64_t i) {
    const int64_t begin = i * kChunk, end = begin + kChunk < n ? begin + kChunk : n;
    volatile float sink = table.read(x.data() + begin, end - begin);
    (void)sink;
  });
  return x.data()[0];
}

}  // namespace

void bind_measure(nb::module_& m) {
  m.def("peak", &peak, nb::arg("kind"), nb::arg("iterations"));
  m.def("read", &read, nb::arg("x").noconvert());
}

}  // namespace kogata
