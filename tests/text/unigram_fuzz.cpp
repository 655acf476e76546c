// The Unigram tokenizer over random vocabularies and random bytes, most of them no UTF-8: meant for a sanitizer build.
// Exits with 1 if ids differ with and without spans, or a span leaves the text.
#include <cstdio>
#include <random>
#include <vector>

#include "unigram.h"

namespace {

std::mt19937 rng(1);

uint32_t below(uint32_t n) { return static_cast<uint32_t>(rng()) % n; }

uint8_t some_byte() {
  static const uint8_t kBytes[] = {'a', 'b', 0xE2, 0x96, 0x81, 0xE3, 0x81, 0x82, 0xF0, 0x9F, 0x98, 0x80, 0xC3, 0xFF};
  return below(4) ? kBytes[below(sizeof kBytes)] : static_cast<uint8_t>(below(256));
}

struct Vocabulary {
  std::vector<uint8_t> blob;
  std::vector<uint32_t> offsets{0}, norm_from, norm_offsets{0}, norm_to;
  std::vector<float> scores;

  explicit Vocabulary(uint32_t longest) {
    for (uint32_t left = 1 + below(40); left > 0; --left) {
      for (uint32_t size = 1 + below(longest); size > 0; --size) blob.push_back(some_byte());
      offsets.push_back(static_cast<uint32_t>(blob.size()));
      scores.push_back(-static_cast<float>(below(5)));
    }
    uint32_t point = 0;
    for (uint32_t left = below(6); left > 0; --left) {
      point += 1 + below(left == 1 ? 0x20000 : 60);
      norm_from.push_back(point);
      for (uint32_t size = below(3); size > 0; --size) norm_to.push_back(below(3) ? 0x20 : below(0x110000));
      norm_offsets.push_back(static_cast<uint32_t>(norm_to.size()));
    }
    // Exactly as long as they are used, so that a sanitizer sees one element too many.
    blob.shrink_to_fit();
    scores.shrink_to_fit();
    for (auto* words : {&offsets, &norm_from, &norm_offsets, &norm_to}) words->shrink_to_fit();
  }

  kogata::UnigramTable table() const {
    const auto n = static_cast<int64_t>(scores.size());
    return {blob.data(),      offsets.data(),      scores.data(),
            n,                norm_from.data(),    norm_offsets.data(),
            norm_to.data(),   static_cast<int64_t>(norm_from.size()), static_cast<int32_t>(below(static_cast<uint32_t>(n)))};
  }
};

bool good(const kogata::Unigram& unigram, const std::vector<uint8_t>& text) {
  std::vector<int32_t> ids, again, spans;
  unigram.encode(text.data(), text.size(), ids, &spans);
  unigram.encode(text.data(), text.size(), again, nullptr);
  if (ids != again || spans.size() != 2 * ids.size()) return false;
  for (size_t i = 0; i < spans.size(); i += 2) {
    if (spans[i] < 0 || spans[i] > spans[i + 1] || static_cast<size_t>(spans[i + 1]) > text.size()) return false;
  }
  return true;
}

}  // namespace

int main() {
  for (int round = 0; round < 3000; ++round) {
    const Vocabulary vocabulary(round % 50 == 0 ? 256 : 6);
    const kogata::Unigram unigram(vocabulary.table());
    for (int i = 0; i < 10; ++i) {
      std::vector<uint8_t> text;
      for (uint32_t left = below(i == 9 ? 5000 : 40); left > 0; --left) {
        const auto n = static_cast<uint32_t>(vocabulary.blob.size());
        text.push_back(below(3) ? vocabulary.blob[below(n)] : below(2) ? ' ' : static_cast<uint8_t>(below(256)));
      }
      text.shrink_to_fit();
      if (!good(unigram, text)) {
        std::printf("round %d, text %d\n", round, i);
        return 1;
      }
    }
  }
  return 0;
}
