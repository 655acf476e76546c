// Bindings of attention over pages. Everything that a kernel follows is checked here: page tables, positions, lengths.
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "bindings.h"
#include "pages.h"
#include "recording.h"

namespace kogata {
namespace {

using Floats = Array<const float, 2>;
using Ints = Array<const int32_t, 1>;
using Gain = std::optional<Array<const float, 1>>;

PageKind page_kind(const std::string& name) {
  if (name == "f32") return PageKind::f32;
  if (name == "bf16") return PageKind::bf16;
  require(name == "int8", "kind must be f32, bf16 or int8");
  return PageKind::int8;
}

int64_t bytes_of_page(const std::string& kind, int64_t head_dim) {
  require(head_dim >= 16 && head_dim <= 256 && head_dim % 8 == 0, "d_head must be a multiple of 8 between 16 and 256");
  return page_bytes(page_kind(kind), head_dim);
}

// The pages of one layer: those of other layers may lie between them.
template <class T>
using LayerPages = nb::ndarray<T, nb::ndim<3>, nb::device::cpu>;

// What both calls are given: heads, packed rows, the pages of one layer and who owns which.
struct Pages {
  int64_t n_rows, n_pages, step, table_width, n_sequences;
  const int32_t *table, *cu_rows;

  template <class T>
  Pages(int64_t rows, int64_t columns, const LayerPages<T>& pages, int64_t bytes,
        const Array<const int32_t, 2>& page_table, const Ints& cu, int64_t n_heads, int64_t n_kv_heads,
        int64_t head_dim)
      : n_rows(rows),
        n_pages(static_cast<int64_t>(pages.shape(0))),
        step(pages.stride(0)),
        table_width(static_cast<int64_t>(page_table.shape(1))),
        n_sequences(static_cast<int64_t>(page_table.shape(0))),
        table(page_table.data()),
        cu_rows(cu.data()) {
    require(n_kv_heads >= 1 && n_heads >= n_kv_heads && n_heads % n_kv_heads == 0 && n_heads <= 65536,
            "n_heads must be a multiple of n_kv_heads");
    require(columns == (n_heads + 2 * n_kv_heads) * head_dim, "qkv must be [T, (n_heads + 2 * n_kv_heads) * d_head]");
    require(static_cast<int64_t>(pages.shape(1)) == n_kv_heads && static_cast<int64_t>(pages.shape(2)) == bytes,
            "pages must be [P, n_kv_heads, page_bytes(kind, d_head)]");
    require(pages.stride(2) == 1 && (n_kv_heads == 1 || pages.stride(1) == bytes) &&
                (n_pages <= 1 || step >= n_kv_heads * bytes),
            "the heads of a page must lie side by side");
    require(reinterpret_cast<uintptr_t>(pages.data()) % sizeof(float) == 0 && (n_pages <= 1 || step % 4 == 0),
            "pages must be aligned to 4 bytes");
    require(static_cast<int64_t>(cu.shape(0)) == n_sequences + 1, "cu_rows must be [S + 1] where page_table is [S, M]");
  }

  void check_rows() const {
    require(cu_rows[0] == 0 && cu_rows[n_sequences] == n_rows, "cu_rows must run from 0 to the number of rows");
    for (int64_t s = 0; s < n_sequences; ++s) require(cu_rows[s] <= cu_rows[s + 1], "cu_rows must not fall");
  }

  int32_t page(int64_t sequence, int64_t place) const {
    const int32_t id = table[sequence * table_width + place];
    require(id >= 0 && id < n_pages, "page_table names a page that does not exist");
    return id;
  }
};

void rotate_and_write(Array<float, 2> qkv, Ints positions, Floats cos, Floats sin, LayerPages<uint8_t> pages,
                      const std::string& kind, Array<const int32_t, 2> page_table, Ints cu_rows, int64_t n_heads,
                      int64_t n_kv_heads, int64_t head_dim, Gain q_gain, Gain k_gain, float eps) {
  const int64_t bytes = bytes_of_page(kind, head_dim);
  const auto n_rows = static_cast<int64_t>(qkv.shape(0));
  const Pages p(n_rows, static_cast<int64_t>(qkv.shape(1)), pages, bytes, page_table, cu_rows, n_heads, n_kv_heads,
                head_dim);
  require(static_cast<int64_t>(positions.shape(0)) == n_rows, "positions must be [T]");
  require(static_cast<int64_t>(cos.shape(1)) == head_dim / 2 && sin.shape(0) == cos.shape(0) &&
              sin.shape(1) == cos.shape(1),
          "cos and sin must be [positions, d_head / 2]");
  for (const Gain* gain : {&q_gain, &k_gain}) {
    require(!*gain || static_cast<int64_t>((*gain)->shape(0)) == head_dim, "q_gain and k_gain must be [d_head]");
  }
  require(std::isfinite(eps) && eps >= 0, "eps must not be negative");
  const RotateArgs args{page_kind(kind), qkv.data(), positions.data(), nullptr, cos.data(), sin.data(),
                        pages.data(),    p.step,     bytes,            n_heads, n_kv_heads,
                        head_dim,        q_gain ? q_gain->data() : nullptr, k_gain ? k_gain->data() : nullptr, eps};
  const auto n_positions = static_cast<int64_t>(cos.shape(0));
  perform(
      [args, p, n_positions] {
        p.check_rows();
        thread_local std::vector<int32_t> row_pages;
        row_pages.clear();
        for (int64_t s = 0; s < p.n_sequences; ++s) {
          for (int64_t row = p.cu_rows[s]; row < p.cu_rows[s + 1]; ++row) {
            const int64_t position = args.positions[row];
            require(position >= 0 && position < n_positions, "a position is outside cos and sin");
            require(position / kPageKeys < p.table_width, "a position is outside page_table");
            row_pages.push_back(p.page(s, position / kPageKeys));
          }
        }
        RotateArgs found = args;
        found.row_pages = row_pages.data();
        run_rotate_and_write(found, p.n_rows);
      },
      qkv, positions, cos, sin, pages, page_table, cu_rows, q_gain, k_gain);
}

void attend_pages(Floats qkv, LayerPages<const uint8_t> pages, const std::string& kind,
                  Array<const int32_t, 2> page_table, Ints cu_rows, Ints lengths, int64_t n_heads, int64_t n_kv_heads,
                  int64_t head_dim, float scale, int64_t window, Array<float, 2> out,
                  std::optional<Array<float, 2>> lse) {
  const int64_t bytes = bytes_of_page(kind, head_dim);
  const auto n_rows = static_cast<int64_t>(qkv.shape(0));
  const Pages p(n_rows, static_cast<int64_t>(qkv.shape(1)), pages, bytes, page_table, cu_rows, n_heads, n_kv_heads,
                head_dim);
  require(static_cast<int64_t>(lengths.shape(0)) == p.n_sequences, "lengths must be [S]");
  require(static_cast<int64_t>(out.shape(0)) == n_rows && static_cast<int64_t>(out.shape(1)) == n_heads * head_dim,
          "out must be [T, n_heads * d_head]");
  require(!lse || (static_cast<int64_t>(lse->shape(0)) == n_rows && static_cast<int64_t>(lse->shape(1)) == n_heads),
          "lse must be [T, n_heads]");
  require(window >= 0, "window must be 0 (all keys) or a number of keys");
  require(std::isfinite(scale), "scale must be finite");
  const PagesArgs args{page_kind(kind), qkv.data(), pages.data(), p.step, bytes,      n_heads,
                       n_kv_heads,      head_dim,   scale,        window, out.data(), lse ? lse->data() : nullptr};
  perform(
      [args, p, lengths = lengths.data()] {
        p.check_rows();
        for (int64_t s = 0; s < p.n_sequences; ++s) {
          const int64_t rows = p.cu_rows[s + 1] - p.cu_rows[s], length = lengths[s], first = length - rows;
          if (rows == 0) continue;
          require(first >= 0, "a sequence has more rows than its length");
          require(length <= p.table_width * kPageKeys, "a length is outside page_table");
          const int64_t oldest = args.window == 0 ? 0 : std::max<int64_t>(0, first - args.window + 1) / kPageKeys;
          for (int64_t place = oldest; place <= (length - 1) / kPageKeys; ++place) p.page(s, place);
        }
        run_attend_pages(args, p.table, p.table_width, p.cu_rows, lengths, p.n_sequences);
      },
      qkv, pages, page_table, cu_rows, lengths, out, lse);
}

void merge(Floats out_a, Floats lse_a, Floats out_b, Floats lse_b, Array<float, 2> out, Array<float, 2> lse) {
  const auto n_rows = static_cast<int64_t>(out.shape(0)), width = static_cast<int64_t>(out.shape(1));
  const auto n_heads = static_cast<int64_t>(lse.shape(1));
  require(n_heads >= 1 && width % n_heads == 0, "out's width must be a multiple of the number of heads");
  for (const Floats* part : {&out_a, &out_b}) {
    require(static_cast<int64_t>(part->shape(0)) == n_rows && static_cast<int64_t>(part->shape(1)) == width,
            "out_a, out_b and out must have one shape");
  }
  require(static_cast<int64_t>(lse.shape(0)) == n_rows, "lse must be [T, n_heads]");
  for (const Floats* part : {&lse_a, &lse_b}) {
    require(static_cast<int64_t>(part->shape(0)) == n_rows && static_cast<int64_t>(part->shape(1)) == n_heads,
            "lse_a, lse_b and lse must have one shape");
  }
  const MergeArgs args{out_a.data(), lse_a.data(),    out_b.data(), lse_b.data(),
                       n_heads,      width / n_heads, out.data(),   lse.data()};
  nb::gil_scoped_release release;
  run_merge(args, n_rows);
}

}  // namespace

void bind_pages(nb::module_& m) {
  m.def("page_bytes", &bytes_of_page, nb::arg("kind"), nb::arg("d_head"));
  m.def("rotate_and_write", &rotate_and_write, nb::arg("qkv").noconvert(), nb::arg("positions").noconvert(),
        nb::arg("cos").noconvert(), nb::arg("sin").noconvert(), nb::arg("pages").noconvert(), nb::arg("kind"),
        nb::arg("page_table").noconvert(), nb::arg("cu_rows").noconvert(), nb::arg("n_heads"), nb::arg("n_kv_heads"),
        nb::arg("d_head"), nb::arg("q_gain").noconvert().none(), nb::arg("k_gain").noconvert().none(), nb::arg("eps"));
  m.def("attend_pages", &attend_pages, nb::arg("qkv").noconvert(), nb::arg("pages").noconvert(), nb::arg("kind"),
        nb::arg("page_table").noconvert(), nb::arg("cu_rows").noconvert(), nb::arg("lengths").noconvert(),
        nb::arg("n_heads"), nb::arg("n_kv_heads"), nb::arg("d_head"), nb::arg("scale"), nb::arg("window"),
        nb::arg("out").noconvert(), nb::arg("lse").noconvert().none());
  m.def("merge", &merge, nb::arg("out_a").noconvert(), nb::arg("lse_a").noconvert(), nb::arg("out_b").noconvert(),
        nb::arg("lse_b").noconvert(), nb::arg("out").noconvert(), nb::arg("lse").noconvert());
}

}  // namespace kogata
