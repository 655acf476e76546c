// Bindings of the row-wise kernels.
#include "bindings.h"
#include "elementwise.h"
#include "recording.h"

namespace kogata {
namespace {

using Rows = Array<const float, 2>;
using Row = Array<const float, 1>;
using Ints = Array<const int32_t, 1>;

void layer_norm(Rows x, std::optional<Rows> residual, Row gain, Row bias, float eps, Array<float, 2> out) {
  const auto n = static_cast<int64_t>(x.shape(0)), width = static_cast<int64_t>(x.shape(1));
  require(width > 0, "x must have at least one column");
  require(gain.shape(0) == x.shape(1) && bias.shape(0) == x.shape(1), "gain and bias must be as wide as x");
  require(out.shape(0) == x.shape(0) && out.shape(1) == x.shape(1), "out must have the shape of x");
  require(!residual || (residual->shape(0) == x.shape(0) && residual->shape(1) == x.shape(1)),
          "residual must have the shape of x");
  const NormArgs args{x.data(), residual ? residual->data() : nullptr, gain.data(), bias.data(), out.data(), width, eps};
  nb::gil_scoped_release release;
  run_layer_norm(args, n);
}

void rms_norm(Rows x, std::optional<Rows> residual, Row gain, float eps, Array<float, 2> out) {
  const auto n = static_cast<int64_t>(x.shape(0)), width = static_cast<int64_t>(x.shape(1));
  require(width > 0, "x must have at least one column");
  require(gain.shape(0) == x.shape(1), "gain must be as wide as x");
  require(out.shape(0) == x.shape(0) && out.shape(1) == x.shape(1), "out must have the shape of x");
  require(!residual || (residual->shape(0) == x.shape(0) && residual->shape(1) == x.shape(1)),
          "residual must have the shape of x");
  const NormArgs args{x.data(), residual ? residual->data() : nullptr, gain.data(), nullptr, out.data(), width, eps};
  perform([args, n] { run_rms_norm(args, n); }, x, residual, gain, out);
}

// `word` is f32 [V, H]; or uint8 [V, H / 32, 18], blocks of an f16 scale and 16 bytes of codes.
void embed(Ints ids, Ints positions, std::optional<Ints> types, std::optional<Rows> word,
           std::optional<Array<const uint8_t, 3>> blocks, Rows position, std::optional<Rows> type, Row gain, Row bias,
           float eps, Array<float, 2> out) {
  const auto n = static_cast<int64_t>(ids.shape(0)), width = static_cast<int64_t>(out.shape(1));
  require(word.has_value() != blocks.has_value(), "exactly one of word and blocks must be given");
  require(!word || word->shape(1) == out.shape(1), "word must be as wide as out");
  require(!blocks || (width % 32 == 0 && static_cast<int64_t>(blocks->shape(1)) == width / 32 && blocks->shape(2) == 18),
          "blocks must be [V, H / 32, 18]");
  require(position.shape(1) == out.shape(1) && (!type || type->shape(1) == out.shape(1)),
          "position and type must be as wide as out");
  require(gain.shape(0) == out.shape(1) && bias.shape(0) == out.shape(1), "gain and bias must be as wide as out");
  require(out.shape(0) == ids.shape(0) && positions.shape(0) == ids.shape(0) && (!types || types->shape(0) == ids.shape(0)),
          "ids, positions, types and out must have one row a token");
  const auto n_words = static_cast<int64_t>(word ? word->shape(0) : blocks->shape(0));
  const auto n_positions = static_cast<int64_t>(position.shape(0));
  const int64_t n_types = type ? static_cast<int64_t>(type->shape(0)) : 1;
  for (int64_t t = 0; t < n; ++t) {
    require(ids.data()[t] >= 0 && ids.data()[t] < n_words, "a token id is outside the vocabulary");
    require(positions.data()[t] >= 0 && positions.data()[t] < n_positions, "a position is outside the position table");
    require(!types || (types->data()[t] >= 0 && types->data()[t] < n_types), "a token type is outside the type table");
  }
  const uint8_t* raw = blocks ? blocks->data() : nullptr;
  const EmbedArgs args{ids.data(),
                       positions.data(),
                       types ? types->data() : nullptr,
                       word ? word->data() : nullptr,
                       raw != nullptr ? raw + 2 : nullptr,
                       raw,
                       18,
                       18,
                       position.data(),
                       type ? type->data() : nullptr,
                       gain.data(),
                       bias.data(),
                       out.data(),
                       width,
                       eps};
  nb::gil_scoped_release release;
  run_embed(args, n);
}

void pool(Rows hidden, Ints cu_seqlens, bool first_token, bool normalise, Array<float, 2> out) {
  const auto n = static_cast<int64_t>(out.shape(0));
  require(cu_seqlens.shape(0) == out.shape(0) + 1, "cu_seqlens must have one entry more than out has rows");
  require(hidden.shape(1) == out.shape(1), "out must be as wide as hidden");
  require(cu_seqlens.data()[0] == 0 && cu_seqlens.data()[n] == static_cast<int64_t>(hidden.shape(0)),
          "cu_seqlens must run from 0 to the number of tokens");
  for (int64_t s = 0; s < n; ++s) require(cu_seqlens.data()[s] <= cu_seqlens.data()[s + 1], "cu_seqlens must not fall");
  const PoolArgs args{hidden.data(), cu_seqlens.data(), out.data(), static_cast<int64_t>(out.shape(1)), first_token, normalise};
  nb::gil_scoped_release release;
  run_pool(args, n);
}

}  // namespace

void bind_elementwise(nb::module_& m) {
  m.def("layer_norm", &layer_norm, nb::arg("x").noconvert(), nb::arg("residual").noconvert().none(),
        nb::arg("gain").noconvert(), nb::arg("bias").noconvert(), nb::arg("eps"), nb::arg("out").noconvert());
  m.def("rms_norm", &rms_norm, nb::arg("x").noconvert(), nb::arg("residual").noconvert().none(),
        nb::arg("gain").noconvert(), nb::arg("eps"), nb::arg("out").noconvert());
  m.def("embed", &embed, nb::arg("ids").noconvert(), nb::arg("positions").noconvert(), nb::arg("types").noconvert().none(),
        nb::arg("word").noconvert().none(), nb::arg("blocks").noconvert().none(), nb::arg("position").noconvert(),
        nb::arg("type").noconvert().none(), nb::arg("gain").noconvert(), nb::arg("bias").noconvert(), nb::arg("eps"),
        nb::arg("out").noconvert());
  m.def("pool", &pool, nb::arg("hidden").noconvert(), nb::arg("cu_seqlens").noconvert(), nb::arg("first_token"),
        nb::arg("normalise"), nb::arg("out").noconvert());
}

}  // namespace kogata
