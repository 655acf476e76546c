// What the binding files share: each family registers its functions in bind_<family>(module).
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

namespace nb = nanobind;

namespace kogata {

// Arguments must be exact: bind them with .noconvert(), or nanobind copies a wrong dtype and the caller's output
// array keeps its zeros.
template <class T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

inline void require(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(what);
}

void bind_elementwise(nb::module_& m);
void bind_linear(nb::module_& m);
void bind_attend(nb::module_& m);
void bind_pages(nb::module_& m);
void bind_score(nb::module_& m);
void bind_sample(nb::module_& m);
void bind_unigram(nb::module_& m);
void bind_measure(nb::module_& m);
void bind_recording(nb::module_& m);

}  // namespace kogata
