// Bindings of recordings.
#include "bindings.h"
#include "recording.h"

namespace kogata {

void bind_recording(nb::module_& m) {
  nb::class_<Recording>(m, "Recording")
      .def(nb::init<>())
      .def("begin", &Recording::begin)
      .def("end", &Recording::end)
      .def("repeat", &Recording::repeat);
}

}  // namespace kogata
