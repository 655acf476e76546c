// Bindings of the quantised linear.
#include <nanobind/stl/string.h>

#include <algorithm>

#include "bindings.h"
#include "linear.h"
#include "recording.h"

namespace kogata {
namespace {

using Bytes = Array<uint8_t, 1>;

WeightKind kind_of(const std::string& name) {
  if (name == "f32") return WeightKind::f32;
  if (name == "bf16") return WeightKind::bf16;
  if (name == "int8") return WeightKind::int8;
  if (name == "int4") return WeightKind::int4;
  if (name == "ternary") return WeightKind::ternary;
  require(name == "trits", "kind must be f32, bf16, int8, int4, ternary or trits");
  return WeightKind::trits;
}

Glu glu_of(const std::string& name) {
  if (name.empty()) return Glu::none;
  if (name == "silu") return Glu::silu;
  if (name == "gelu_tanh") return Glu::gelu_tanh;
  require(name == "relu2", "glu must be silu, gelu_tanh or relu2");
  return Glu::relu2;
}

struct Shape {
  WeightKind kind;
  int64_t n_out, n_in, group;

  bool ternary() const { return kind == WeightKind::ternary || kind == WeightKind::trits; }
  bool integers() const { return kind == WeightKind::int8 || kind == WeightKind::int4; }
};

Shape shape_of(const std::string& kind, int64_t n_out, int64_t n_in, int64_t group) {
  const Shape shape{kind_of(kind), n_out, n_in, group};
  require(n_out >= 1 && n_in >= 1 && n_out <= INT32_MAX && n_in <= 65536, "n_out and n_in must be positive, n_in at most 65536");
  const int64_t step = shape.kind == WeightKind::ternary ? 16 : shape.kind == WeightKind::trits ? 20 : 8;
  require(group == 0 || (group > 0 && group % step == 0 && group <= 65536), "group must be 0 or a multiple of whole steps");
  require(group == 0 || shape.integers() || shape.ternary(), "only int8, int4 and ternary weights have groups");
  require(group != 0 || shape.kind != WeightKind::int4, "int4 weights need groups");
  return shape;
}

int64_t n_scales(const Shape& s) {
  if (!s.integers() && !s.ternary()) return 0;
  return padded_rows(s.n_out) * (s.group == 0 ? 1 : padded_depth(s.kind, s.n_in, s.group) / s.group);
}

int64_t sizes(const std::string& kind, int64_t n_out, int64_t n_in, int64_t group) {
  const Shape s = shape_of(kind, n_out, n_in, group);
  return packed_bytes(s.kind, n_out, n_in, group);
}

void check_sizes(const Shape& s, std::size_t data, std::size_t scales, std::size_t sums, std::size_t code_sums) {
  const bool integers = s.integers();
  require(static_cast<int64_t>(data) == packed_bytes(s.kind, s.n_out, s.n_in, s.group), "data has the wrong size");
  require(static_cast<int64_t>(scales) == n_scales(s), "scales has the wrong size");
  require(static_cast<int64_t>(sums) == (integers && s.group != 0 ? padded_rows(s.n_out) : 0), "sums has the wrong size");
  require(static_cast<int64_t>(code_sums) == (integers && s.group == 0 ? padded_rows(s.n_out) : 0),
          "code_sums has the wrong size");
}

Packed destination(const Shape& s, Bytes& data, Array<float, 1>& scales, Array<float, 1>& sums, Array<int32_t, 1>& code_sums) {
  check_sizes(s, data.shape(0), scales.shape(0), sums.shape(0), code_sums.shape(0));
  return {data.data(), scales.data(), code_sums.data(), sums.data()};
}

void pack_from_f32(const std::string& kind, Array<const float, 2> weight, int64_t group, Bytes data,
                   Array<float, 1> scales, Array<float, 1> sums, Array<int32_t, 1> code_sums) {
  const Shape s = shape_of(kind, static_cast<int64_t>(weight.shape(0)), static_cast<int64_t>(weight.shape(1)), group);
  require(!s.ternary(), "ternary weights are packed from codes");
  const Packed to = destination(s, data, scales, sums, code_sums);
  nb::gil_scoped_release release;
  pack_f32(s.kind, weight.data(), s.n_out, s.n_in, s.group, to);
}

void pack_from_codes(const std::string& kind, Array<const int8_t, 2> codes, Array<const float, 2> code_scales, int64_t group,
                     Bytes data, Array<float, 1> scales, Array<float, 1> sums, Array<int32_t, 1> code_sums) {
  const Shape s = shape_of(kind, static_cast<int64_t>(codes.shape(0)), static_cast<int64_t>(codes.shape(1)), group);
  const auto n_groups = static_cast<int64_t>(code_scales.shape(1));
  require(static_cast<int64_t>(code_scales.shape(0)) == s.n_out && n_groups >= 1 && s.n_in % n_groups == 0,
          "code_scales must be [N, K / group]");
  const int64_t source_group = s.n_in / n_groups;
  require(s.integers() || s.ternary(), "codes pack into int8, int4, ternary or trits");
  require(group == source_group || (group == 0 && (!s.ternary() || n_groups == 1)), "the group must be the codes' own");
  if (s.ternary()) {
    int8_t least = 0, most = 0;
    for (int64_t i = 0; i < s.n_out * s.n_in; ++i) {
      least = std::min(least, codes.data()[i]);
      most = std::max(most, codes.data()[i]);
    }
    require(least >= -1 && most <= 1, "ternary codes are -1, 0 and 1");
  }
  const Packed to = destination(s, data, scales, sums, code_sums);
  nb::gil_scoped_release release;
  pack_codes(s.kind, codes.data(), code_scales.data(), source_group, s.n_out, s.n_in, s.group, to);
}

// Packed weights that were checked once: a decoding step calls a hundred of these, and looking at seven arrays each time
// took as long as some of the products.
class Linear {
 public:
  Linear(const std::string& kind, int64_t n_out, int64_t n_in, int64_t group, Array<const uint8_t, 1> data,
         Array<const float, 1> scales, Array<const float, 1> sums, Array<const int32_t, 1> code_sums,
         std::optional<Array<const float, 1>> bias)
      : shape_(shape_of(kind, n_out, n_in, group)),
        data_(std::move(data)),
        scales_(std::move(scales)),
        sums_(std::move(sums)),
        code_sums_(std::move(code_sums)),
        bias_(std::move(bias)) {
    check_sizes(shape_, data_.shape(0), scales_.shape(0), sums_.shape(0), code_sums_.shape(0));
    require(!bias_ || static_cast<int64_t>(bias_->shape(0)) == n_out, "bias must have n_out values");
  }

  void operator()(Array<const float, 2> x, const std::string& glu, std::optional<Array<const float, 1>> gain, float eps,
                  bool gelu, std::optional<Array<const float, 2>> residual, Array<float, 2> out) const {
    const Glu gate = glu_of(glu);
    const Shape& s = shape_;
    require(static_cast<int64_t>(x.shape(1)) == s.n_in * (gate == Glu::none ? 1 : 2),
            "x is not as wide as the packed weights (twice as wide with a gated unit)");
    require(!gain || static_cast<int64_t>(gain->shape(0)) == s.n_in, "the norm's gain must be as wide as its input");
    require(out.shape(0) == x.shape(0) && static_cast<int64_t>(out.shape(1)) == s.n_out, "out must be [T, n_out]");
    require(!residual || (residual->shape(0) == out.shape(0) && residual->shape(1) == out.shape(1)),
            "residual must have the shape of out");
    const LinearCall call{s.kind, static_cast<int64_t>(x.shape(0)), s.n_in, s.n_out, s.group, x.data(), gate,
                          gain ? gain->data() : nullptr, eps, data_.data(), scales_.data(), code_sums_.data(),
                          sums_.data(), bias_ ? bias_->data() : nullptr, residual ? residual->data() : nullptr,
                          out.data(), gelu};
    perform([call] { run_linear(call); }, x, gain, residual, out, data_, scales_, sums_, code_sums_, bias_);
  }

  void take(Array<const int32_t, 1> rows, float factor, Array<float, 2> out) const {
    const auto n_rows = static_cast<int64_t>(rows.shape(0));
    require(out.shape(0) == rows.shape(0) && static_cast<int64_t>(out.shape(1)) == shape_.n_in, "out must be [R, K]");
    const TakeCall call{shape_.kind, shape_.n_in, shape_.group, data_.data(), scales_.data(), rows.data(), n_rows, factor, out.data()};
    perform(
        [call, n_out = shape_.n_out] {
          for (int64_t r = 0; r < call.n_rows; ++r) {
            require(call.rows[r] >= 0 && call.rows[r] < n_out, "a row is outside the matrix");
          }
          run_take(call);
        },
        rows, out, data_, scales_);
  }

 private:
  Shape shape_;
  Array<const uint8_t, 1> data_;
  Array<const float, 1> scales_, sums_;
  Array<const int32_t, 1> code_sums_;
  std::optional<Array<const float, 1>> bias_;
};

}  // namespace

void bind_linear(nb::module_& m) {
  m.def("packed_bytes", &sizes, nb::arg("kind"), nb::arg("n_out"), nb::arg("n_in"), nb::arg("group"));
  m.def("pack_f32", &pack_from_f32, nb::arg("kind"), nb::arg("weight").noconvert(), nb::arg("group"),
        nb::arg("data").noconvert(), nb::arg("scales").noconvert(), nb::arg("sums").noconvert(),
        nb::arg("code_sums").noconvert());
  m.def("pack_codes", &pack_from_codes, nb::arg("kind"), nb::arg("codes").noconvert(), nb::arg("code_scales").noconvert(),
        nb::arg("group"), nb::arg("data").noconvert(), nb::arg("scales").noconvert(), nb::arg("sums").noconvert(),
        nb::arg("code_sums").noconvert());
  nb::class_<Linear>(m, "Linear")
      .def(nb::init<const std::string&, int64_t, int64_t, int64_t, Array<const uint8_t, 1>, Array<const float, 1>,
                    Array<const float, 1>, Array<const int32_t, 1>, std::optional<Array<const float, 1>>>(),
           nb::arg("kind"), nb::arg("n_out"), nb::arg("n_in"), nb::arg("group"), nb::arg("data").noconvert(),
           nb::arg("scales").noconvert(), nb::arg("sums").noconvert(), nb::arg("code_sums").noconvert(),
           nb::arg("bias").noconvert().none())
      .def("__call__", &Linear::operator(), nb::arg("x").noconvert(), nb::arg("glu"), nb::arg("gain").noconvert().none(),
           nb::arg("eps"), nb::arg("gelu"), nb::arg("residual").noconvert().none(), nb::arg("out").noconvert())
      .def("take", &Linear::take, nb::arg("rows").noconvert(), nb::arg("factor"), nb::arg("out").noconvert());
}

}  // namespace kogata
