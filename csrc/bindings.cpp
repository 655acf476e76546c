// The extension module: checks shapes and dtypes, releases the GIL, calls the table in force.
#include "bindings.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "dispatch.h"
#include "pool.h"

NB_MODULE(_native, m) {
  m.doc() = "Kogata's CPU kernels. Private: use kogata.ops.";
  m.def("built_isas", &kogata::built_isas);
  m.def("supported_isas", &kogata::supported_isas);
  m.def("select_isa", &kogata::select_isa);
  m.def("selected_isa", [] { return std::string(kogata::kernels().name); });
  m.def("bf16_dot", [] { return kogata::kernels().bf16_dot; });
  m.def("default_threads", &kogata::default_threads);
  m.def("threads", &kogata::threads);
  m.def("set_threads", [](int n) {
    kogata::require(n >= 1 && n <= 256, "threads must be between 1 and 256");
    nb::gil_scoped_release release;
    kogata::set_threads(n);
  });
  kogata::bind_elementwise(m);
  kogata::bind_linear(m);
  kogata::bind_attend(m);
  kogata::bind_pages(m);
  kogata::bind_score(m);
  kogata::bind_sample(m);
  kogata::bind_unigram(m);
  kogata::bind_measure(m);
  kogata::bind_recording(m);
}
