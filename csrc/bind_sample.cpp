// Bindings of the sampler: numbers of every row, and lists of all rows one after another.
#include "bindings.h"

#include <nanobind/stl/array.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "sample.h"

namespace kogata {
namespace {

using Starts = Array<const int64_t, 1>;
using Ids = Array<const int32_t, 1>;

// Row b's part of a list is [starts[b], starts[b + 1]).
void require_list(const Starts& starts, const Ids& ids, size_t n_values, size_t n_rows, int64_t n_vocab) {
  require(starts.shape(0) == n_rows + 1, "one start more than rows is needed");
  require(ids.shape(0) == n_values, "one value an id is needed");
  const int64_t* start = starts.data();
  bool good = start[0] == 0 && start[n_rows] == static_cast<int64_t>(n_values);
  for (size_t b = 0; good && b < n_rows; ++b) good = start[b] <= start[b + 1];
  require(good, "the starts do not fit the ids");
  for (size_t i = 0; i < n_values; ++i) {
    require(ids.data()[i] >= 0 && ids.data()[i] < n_vocab, "a token id is outside the vocabulary");
  }
}

// numbers: temperature, top_k, top_p, min_p, repetition, presence, frequency, log-probabilities to report (-1: none).
// keys: seed, stream, position.
void sample(Array<const float, 2> logits_BV, Array<const double, 2> numbers_B8, Array<const uint64_t, 2> keys_B3,
            Starts seen_starts, Ids seen_ids, Ids seen_counts, Starts bias_starts, Ids bias_ids, Array<const float, 1> biases,
            std::optional<Array<const uint32_t, 2>> mask_BW, Array<int32_t, 1> tokens_B, Array<float, 1> logprobs_B,
            Array<int32_t, 2> top_ids_BL, Array<float, 2> top_logprobs_BL) {
  const size_t n_rows = logits_BV.shape(0), n_top = top_ids_BL.shape(1);
  const auto n_vocab = static_cast<int64_t>(logits_BV.shape(1));
  require(n_vocab >= 1 && n_vocab <= std::numeric_limits<int32_t>::max() - 64, "the vocabulary is empty or too large");
  require(numbers_B8.shape(0) == n_rows && numbers_B8.shape(1) == 8, "numbers must be [B, 8]");
  require(keys_B3.shape(0) == n_rows && keys_B3.shape(1) == 3, "keys must be [B, 3]");
  require_list(seen_starts, seen_ids, seen_counts.shape(0), n_rows, n_vocab);
  require_list(bias_starts, bias_ids, biases.shape(0), n_rows, n_vocab);
  require(!mask_BW || (mask_BW->shape(0) == n_rows && static_cast<int64_t>(mask_BW->shape(1)) == (n_vocab + 31) / 32),
          "the mask must have a bit a token");
  require(tokens_B.shape(0) == n_rows && logprobs_B.shape(0) == n_rows && top_ids_BL.shape(0) == n_rows &&
              top_logprobs_BL.shape(0) == n_rows && top_logprobs_BL.shape(1) == n_top,
          "the outputs do not fit the rows");
  std::vector<SampleRow> rows(n_rows);
  std::vector<SampleResult> results(n_rows);
  for (size_t b = 0; b < n_rows; ++b) {
    const double* x = numbers_B8.data() + 8 * b;
    const uint64_t* key = keys_B3.data() + 3 * b;
    bool finite = true;
    for (int i = 0; i < 8; ++i) finite = finite && std::isfinite(x[i]);
    require(finite && x[0] >= 0.0 && x[1] >= 0.0 && x[1] <= 2147483647.0 && x[2] >= 0.0 && x[2] <= 1.0 && x[3] >= 0.0 &&
                x[3] <= 1.0 && x[4] > 0.0 && x[7] >= -1.0 && x[7] <= static_cast<double>(n_top),
            "a number is out of range");
    const int64_t seen = seen_starts.data()[b], bias = bias_starts.data()[b];
    rows[b] = {x[0],
               static_cast<int64_t>(x[1]),
               x[2],
               x[3],
               static_cast<float>(x[4]),
               static_cast<float>(x[5]),
               static_cast<float>(x[6]),
               static_cast<int64_t>(x[7]),
               key[0],
               key[1],
               key[2],
               seen_ids.data() + seen,
               seen_counts.data() + seen,
               seen_starts.data()[b + 1] - seen,
               bias_ids.data() + bias,
               biases.data() + bias,
               bias_starts.data()[b + 1] - bias,
               mask_BW ? mask_BW->data() + b * mask_BW->shape(1) : nullptr};
    results[b] = {tokens_B.data() + b, logprobs_B.data() + b, top_ids_BL.data() + b * n_top,
                  top_logprobs_BL.data() + b * n_top};
  }
  nb::gil_scoped_release release;
  run_sample(logits_BV.data(), static_cast<int64_t>(n_rows), n_vocab, rows.data(), results.data());
}

}  // namespace

void bind_sample(nb::module_& m) {
  using nb::arg;
  m.def("philox", &philox, arg("counter"), arg("key"));
  m.def("sample", &sample, arg("logits").noconvert(), arg("numbers").noconvert(), arg("keys").noconvert(),
        arg("seen_starts").noconvert(), arg("seen_ids").noconvert(), arg("seen_counts").noconvert(),
        arg("bias_starts").noconvert(), arg("bias_ids").noconvert(), arg("biases").noconvert(),
        arg("mask").noconvert().none(), arg("tokens_out").noconvert(), arg("logprobs_out").noconvert(),
        arg("top_ids_out").noconvert(), arg("top_logprobs_out").noconvert());
}

}  // namespace kogata
