// Bindings of the Unigram tokenizer: arrays in, ids and spans out.
#include "bindings.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "pool.h"
#include "unigram.h"

namespace kogata {
namespace {

constexpr int64_t kChunkBytes = 1 << 15;  // of text that a thread takes at a time

using Bytes = Array<const uint8_t, 1>;
using Words = Array<const uint32_t, 1>;
using Floats = Array<const float, 1>;
using Offsets = Array<const int64_t, 1>;

template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> as_array(std::vector<T>&& values) {
  auto kept = std::make_unique<std::vector<T>>(std::move(values));
  std::vector<T>* held = kept.release();
  nb::capsule owner(held, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return {held->data(), {held->size()}, owner};
}

// Keeps the arrays alive that the tokenizer reads.
class Tokenizer {
 public:
  Tokenizer(Bytes blob, Words offsets, Floats scores, Words norm_from, Words norm_offsets, Words norm_to, int32_t unk_id)
      : blob_(std::move(blob)),
        offsets_(std::move(offsets)),
        scores_(std::move(scores)),
        norm_from_(std::move(norm_from)),
        norm_offsets_(std::move(norm_offsets)),
        norm_to_(std::move(norm_to)) {
    const size_t n = scores_.shape(0);
    require(n >= 1 && n < (size_t{1} << 24), "between 1 and 2^24 pieces are accepted");
    require(offsets_.shape(0) == n + 1, "one offset more than pieces is needed");
    require(norm_offsets_.shape(0) == norm_from_.shape(0) + 1, "one map offset more than characters is needed");
    require(unk_id >= 0 && static_cast<size_t>(unk_id) < n, "the unknown piece is out of range");
    require_ascending(offsets_, blob_.shape(0), 256);
    require_ascending(norm_offsets_, norm_to_.shape(0), 0xffffffff);
    require(std::is_sorted(norm_from_.data(), norm_from_.data() + norm_from_.shape(0)), "the map is not in order");
    const UnigramTable table{blob_.data(),        offsets_.data(),      scores_.data(),
                             static_cast<int64_t>(n), norm_from_.data(),    norm_offsets_.data(),
                             norm_to_.data(),     static_cast<int64_t>(norm_from_.shape(0)), unk_id};
    nb::gil_scoped_release release;
    unigram_ = std::make_unique<Unigram>(table);
  }

  // Ids of all texts, one after another, and where each text's begin.
  nb::object encode_batch(const nb::bytes& joined, const Offsets& starts) const {
    const auto* text = reinterpret_cast<const uint8_t*>(joined.c_str());
    require(starts.shape(0) >= 1, "one start more than texts is needed");
    const auto n = static_cast<int64_t>(starts.shape(0)) - 1;
    const int64_t* start = starts.data();
    require(start[0] == 0 && start[n] == static_cast<int64_t>(joined.size()) && std::is_sorted(start, start + n + 1),
            "the starts do not fit the texts");
    std::vector<int32_t> ids;
    std::vector<int64_t> ends(static_cast<size_t>(n) + 1);
    {
      nb::gil_scoped_release release;
      encode_all(text, start, n, ids, ends);
    }
    return nb::make_tuple(as_array(std::move(ids)), as_array(std::move(ends)));
  }

  nb::object encode_spans(const nb::bytes& text) const {
    require(text.size() < (size_t{1} << 31), "texts up to 2 GB are accepted");
    std::vector<int32_t> ids;
    std::vector<int32_t> spans;
    {
      nb::gil_scoped_release release;
      unigram_->encode(reinterpret_cast<const uint8_t*>(text.c_str()), text.size(), ids, &spans);
    }
    return nb::make_tuple(as_array(std::move(ids)), as_array(std::move(spans)));
  }

 private:
  static void require_ascending(const Words& offsets, size_t end, uint32_t largest_step) {
    const uint32_t* at = offsets.data();
    const size_t n = offsets.shape(0) - 1;
    bool good = at[0] == 0 && at[n] == end;
    for (size_t i = 0; good && i < n; ++i) good = at[i] <= at[i + 1] && at[i + 1] - at[i] <= largest_step;
    require(good, "offsets are not in order");
  }

  struct Chunk {
    int64_t first, last;  // texts
    std::vector<int32_t> ids;
    std::exception_ptr error;
  };

  void encode_all(const uint8_t* text, const int64_t* start, int64_t n, std::vector<int32_t>& ids,
                  std::vector<int64_t>& ends) const {
    std::vector<Chunk> chunks;
    for (int64_t first = 0; first < n;) {
      int64_t last = first + 1;
      while (last < n && start[last + 1] - start[first] <= kChunkBytes) ++last;
      chunks.push_back({first, last, {}, nullptr});
      first = last;
    }
    std::vector<int64_t> counts(static_cast<size_t>(n));
    const auto run = [&](int64_t c) {
      Chunk& chunk = chunks[static_cast<size_t>(c)];
      try {  // memory may run out; an exception must not leave a pool thread
        for (int64_t i = chunk.first; i < chunk.last; ++i) {
          const size_t before = chunk.ids.size();
          unigram_->encode(text + start[i], static_cast<size_t>(start[i + 1] - start[i]), chunk.ids, nullptr);
          counts[static_cast<size_t>(i)] = static_cast<int64_t>(chunk.ids.size() - before);
        }
      } catch (...) {
        chunk.error = std::current_exception();
      }
    };
    if (chunks.size() == 1) {
      run(0);
    } else {
      parallel_for(static_cast<int64_t>(chunks.size()), run);
    }
    for (const Chunk& chunk : chunks) {
      if (chunk.error) std::rethrow_exception(chunk.error);
    }
    std::inclusive_scan(counts.begin(), counts.end(), ends.begin() + 1);
    ids.reserve(static_cast<size_t>(ends.back()));
    for (const Chunk& chunk : chunks) ids.insert(ids.end(), chunk.ids.begin(), chunk.ids.end());
  }

  Bytes blob_;
  Words offsets_;
  Floats scores_;
  Words norm_from_, norm_offsets_, norm_to_;
  std::unique_ptr<Unigram> unigram_;
};

}  // namespace

void bind_unigram(nb::module_& m) {
  nb::class_<Tokenizer>(m, "Unigram")
      .def(nb::init<Bytes, Words, Floats, Words, Words, Words, int32_t>(), nb::arg("blob").noconvert(),
           nb::arg("offsets").noconvert(), nb::arg("scores").noconvert(), nb::arg("norm_from").noconvert(),
           nb::arg("norm_offsets").noconvert(), nb::arg("norm_to").noconvert(), nb::arg("unk_id"))
      .def("encode_batch", &Tokenizer::encode_batch, nb::arg("joined"), nb::arg("starts").noconvert())
      .def("encode_spans", &Tokenizer::encode_spans, nb::arg("text"));
}

}  // namespace kogata
