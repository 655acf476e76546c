// Bindings of attention.
#include "attend.h"
#include "bindings.h"

namespace kogata {
namespace {

void encode_attention(Array<const float, 2> qkv, Array<const int32_t, 1> cu_seqlens, int64_t n_heads, bool reduced,
                      Array<float, 2> out, std::optional<Array<float, 2>> lse) {
  const auto n_tokens = static_cast<int64_t>(qkv.shape(0)), width = static_cast<int64_t>(out.shape(1));
  require(n_heads >= 1 && width >= 1 && width % n_heads == 0, "out's width must be a multiple of n_heads");
  require(static_cast<int64_t>(qkv.shape(1)) == 3 * width && out.shape(0) == qkv.shape(0),
          "qkv must be [T, 3 * H] and out [T, H]");
  require(!lse || (lse->shape(0) == qkv.shape(0) && static_cast<int64_t>(lse->shape(1)) == n_heads),
          "lse must be [T, n_heads]");
  require(cu_seqlens.shape(0) >= 1, "cu_seqlens must not be empty");
  const auto n = static_cast<int64_t>(cu_seqlens.shape(0)) - 1;
  require(cu_seqlens.data()[0] == 0 && cu_seqlens.data()[n] == n_tokens,
          "cu_seqlens must run from 0 to the number of tokens");
  for (int64_t s = 0; s < n; ++s) require(cu_seqlens.data()[s] <= cu_seqlens.data()[s + 1], "cu_seqlens must not fall");
  const AttendArgs args{qkv.data(), out.data(), lse ? lse->data() : nullptr, n_heads, width / n_heads, reduced};
  nb::gil_scoped_release release;
  run_attend(args, cu_seqlens.data(), n);
}

}  // namespace

void bind_attend(nb::module_& m) {
  m.def("encode_attention", &encode_attention, nb::arg("qkv").noconvert(), nb::arg("cu_seqlens").noconvert(),
        nb::arg("n_heads"), nb::arg("reduced"), nb::arg("out").noconvert(), nb::arg("lse").noconvert().none());
}

}  // namespace kogata
