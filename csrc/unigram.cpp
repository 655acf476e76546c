// The Unigram tokenizer: normalise, cut at spaces, and find each word's best pieces (Viterbi).
//
// Pieces are found by a hash that grows character by character, so that all pieces beginning at a character come from
// one walk; a bit per hash of every beginning ends the walk as soon as no piece goes on.
#include "unigram.h"

#include <algorithm>
#include <limits>

namespace kogata {
namespace {

constexpr uint32_t kSpace = 0x20;
constexpr uint32_t kMeta = 0x2581;  // stands for the space before a word
constexpr uint32_t kNoPoint = 0x80000000u;
constexpr double kUnknownPenalty = 10.0;

uint64_t grow(uint64_t hash, uint32_t point) {
  hash = (hash ^ point) * 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 29);
}

// The character that begins at text[at], which it moves past. Bytes that are no UTF-8 become values that no character
// has, one each.
uint32_t decode(const uint8_t* text, size_t size, size_t& at) {
  const uint32_t first = text[at];
  if (first < 0x80) {
    ++at;
    return first;
  }
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || size - at < length) {
    ++at;
    return kNoPoint | first;
  }
  uint32_t point = first & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((text[at + i] & 0xC0) != 0x80) {
      ++at;
      return kNoPoint | first;
    }
    point = (point << 6) | (text[at + i] & 0x3Fu);
  }
  at += length;
  return point;
}

int bits_for(uint64_t n) {
  int bits = 1;
  while ((uint64_t{1} << bits) < n) ++bits;
  return bits;
}

}  // namespace

// A word being read and cut: its characters with the space before them, and for spans where each stood in the text.
struct Unigram::Word {
  std::vector<uint32_t> points;
  std::vector<int32_t> origin;  // -1: the space that is put before the first word
  std::vector<int32_t> back_id;
  std::vector<uint16_t> back_length;
  std::vector<double> best;  // a ring: only positions within a piece's length are alive
};

Unigram::Unigram(const UnigramTable& table) : table_(table), norm_low_(0x10000) {
  const auto n = static_cast<uint64_t>(table.n_pieces);
  const int slot_bits = bits_for(2 * n);
  const int prefix_bits = std::max(bits_for(16 * n), 6);
  slots_.resize(size_t{1} << slot_bits);
  prefixes_.resize(size_t{1} << (prefix_bits - 6));
  slot_shift_ = 64 - slot_bits;
  prefix_shift_ = 64 - prefix_bits;
  float lowest = std::numeric_limits<float>::infinity();
  for (uint32_t id = 0; id < n; ++id) {
    lowest = std::min(lowest, table.scores[id]);
    if (static_cast<int32_t>(id) == table.unk_id) continue;  // unknown is what remains, never a piece of text
    const uint8_t* piece = table.blob + table.offsets[id];
    const size_t size = table.offsets[id + 1] - table.offsets[id];
    uint64_t hash = 0;
    size_t n_points = 0;
    for (size_t at = 0; at < size; ++n_points) {
      hash = grow(hash, decode(piece, size, at));
      const uint64_t bit = hash >> prefix_shift_;
      prefixes_[bit >> 6] |= uint64_t{1} << (bit & 63);
    }
    longest_ = std::max(longest_, n_points);
    insert(hash, id);
  }
  unk_score_ = static_cast<double>(lowest) - kUnknownPenalty;
  for (int64_t i = 0; i < table.n_norm && table.norm_from[i] < 0x10000; ++i) {
    norm_low_[table.norm_from[i]] = static_cast<uint32_t>(i + 1);
  }
}

void Unigram::insert(uint64_t hash, uint32_t id) {
  const size_t mask = slots_.size() - 1;
  size_t slot = hash >> slot_shift_;
  while (slots_[slot].piece != 0) slot = (slot + 1) & mask;  // of equal pieces the first inserted is found
  slots_[slot] = {static_cast<uint32_t>(hash), id + 1};
}

int64_t Unigram::find(uint64_t hash, const uint32_t* points, size_t n) const {
  const size_t mask = slots_.size() - 1;
  const auto tag = static_cast<uint32_t>(hash);
  for (size_t slot = hash >> slot_shift_; slots_[slot].piece != 0; slot = (slot + 1) & mask) {
    if (slots_[slot].tag == tag && spells(slots_[slot].piece - 1, points, n)) return slots_[slot].piece - 1;
  }
  return -1;
}

bool Unigram::spells(uint32_t id, const uint32_t* points, size_t n) const {
  const uint8_t* piece = table_.blob + table_.offsets[id];
  const size_t size = table_.offsets[id + 1] - table_.offsets[id];
  size_t at = 0;
  for (size_t i = 0; i < n; ++i) {
    if (at == size || decode(piece, size, at) != points[i]) return false;
  }
  return at == size;
}

int64_t Unigram::norm_entry(uint32_t point) const {
  if (point < norm_low_.size()) return static_cast<int64_t>(norm_low_[point]) - 1;
  const uint32_t* end = table_.norm_from + table_.n_norm;
  const uint32_t* found = std::lower_bound(table_.norm_from, end, point);
  return found != end && *found == point ? found - table_.norm_from : -1;
}

void Unigram::encode(const uint8_t* text, size_t size, std::vector<int32_t>& ids, std::vector<int32_t>* spans) const {
  thread_local Word word;
  word.points.clear();
  word.origin.clear();
  const auto add = [&](uint32_t point, int32_t origin) {
    word.points.push_back(point);
    if (spans) word.origin.push_back(origin);
  };
  const auto take = [&](uint32_t point, int32_t origin) {
    if (point == kSpace) {
      if (word.points.size() == 1) return;  // one more space after a space
      cut(word, ids, spans);
      add(kMeta, origin);
    } else {
      if (word.points.empty()) add(kMeta, -1);
      add(point, origin);
    }
  };
  int64_t index = 0;
  for (size_t at = 0; at < size; ++index) {
    const uint32_t point = decode(text, size, at);
    const int64_t entry = norm_entry(point);
    if (entry < 0) {
      take(point, static_cast<int32_t>(index));
      continue;
    }
    for (uint32_t i = table_.norm_offsets[entry]; i < table_.norm_offsets[entry + 1]; ++i) {
      take(table_.norm_to[i], static_cast<int32_t>(index));
    }
  }
  cut(word, ids, spans);
  // A megabyte in one word is rare: do not keep its room.
  if (word.points.capacity() > (1u << 16)) word = Word{};
}

// The best pieces of the word, which is empty afterwards. best(e) = max over pieces ending at e of best(start) + score;
// the earliest start wins a tie. A character that is no piece by itself may be unknown; neighbouring ones are one token.
void Unigram::cut(Word& word, std::vector<int32_t>& ids, std::vector<int32_t>* spans) const {
  const size_t n = word.points.size();
  if (n == 0) return;
  const uint32_t* points = word.points.data();
  const size_t mask = (size_t{1} << bits_for(longest_ + 1)) - 1;
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  word.best.assign(mask + 1, kNone);
  word.back_id.resize(n + 1);
  word.back_length.resize(n + 1);
  double* best = word.best.data();
  best[0] = 0.0;
  const auto offer = [&](size_t end, size_t length, double score, int32_t id) {
    if (score > best[end & mask]) {
      best[end & mask] = score;
      word.back_id[end] = id;
      word.back_length[end] = static_cast<uint16_t>(length);
    }
  };
  for (size_t start = 0; start < n; ++start) {
    const double here = best[start & mask];
    best[start & mask] = kNone;  // the ring comes round to this place
    uint64_t hash = 0;
    bool single = false;
    const size_t last = std::min(n, start + longest_);
    for (size_t end = start + 1; end <= last; ++end) {
      hash = grow(hash, points[end - 1]);
      const uint64_t bit = hash >> prefix_shift_;
      if (!(prefixes_[bit >> 6] >> (bit & 63) & 1)) break;
      const int64_t id = find(hash, points + start, end - start);
      if (id < 0) continue;
      single |= end == start + 1;
      offer(end, end - start, here + static_cast<double>(table_.scores[id]), static_cast<int32_t>(id));
    }
    if (!single) offer(start + 1, 1, here + unk_score_, table_.unk_id);
  }
  const size_t first_id = ids.size();
  const size_t first_span = spans ? spans->size() : 0;
  for (size_t end = n; end > 0;) {
    const int32_t id = word.back_id[end];
    size_t start = end - word.back_length[end];
    while (id == table_.unk_id && start > 0 && word.back_id[start] == id) start -= word.back_length[start];
    ids.push_back(id);
    if (spans) {
      // A piece leaves its space out, unless the space is all there is.
      const size_t shown = start == 0 && end > 1 ? 1 : start;
      const bool made = word.origin[shown] < 0;
      spans->push_back(made ? word.origin[1] : word.origin[end - 1] + 1);  // reversed below, so the end comes first
      spans->push_back(made ? word.origin[1] : word.origin[shown]);
    }
    end = start;
  }
  std::reverse(ids.begin() + static_cast<ptrdiff_t>(first_id), ids.end());
  if (spans) std::reverse(spans->begin() + static_cast<ptrdiff_t>(first_span), spans->end());
  word.points.clear();
  word.origin.clear();
}

}  // namespace kogata
