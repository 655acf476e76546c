// SentencePiece's Unigram model over a table of pieces that stays where it is (mapped from a file).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kogata {

// Pieces in UTF-8, one after another, and what characters are replaced by. Checked by the caller except for the text of
// the pieces, which may be any bytes.
struct UnigramTable {
  const uint8_t* blob;
  const uint32_t* offsets;  // n_pieces + 1, ascending
  const float* scores;
  int64_t n_pieces;
  const uint32_t* norm_from;     // n_norm, ascending
  const uint32_t* norm_offsets;  // n_norm + 1, ascending
  const uint32_t* norm_to;
  int64_t n_norm;
  int32_t unk_id;
};

class Unigram {
 public:
  // Builds the lookup tables; the arrays must outlive this object.
  explicit Unigram(const UnigramTable& table);

  // Appends the ids of a text in UTF-8, special tokens left out. With spans, appends each token's start and end too,
  // counted in the text's characters. Linear in the text: no word is too long.
  void encode(const uint8_t* text, size_t size, std::vector<int32_t>& ids, std::vector<int32_t>* spans) const;

 private:
  struct Slot {
    uint32_t tag;    // upper half of the hash
    uint32_t piece;  // 1 + id, 0: empty
  };
  struct Word;

  void insert(uint64_t hash, uint32_t id);
  int64_t find(uint64_t hash, const uint32_t* points, size_t n) const;
  bool spells(uint32_t id, const uint32_t* points, size_t n) const;
  int64_t norm_entry(uint32_t point) const;
  void cut(Word& word, std::vector<int32_t>& ids, std::vector<int32_t>* spans) const;

  UnigramTable table_;
  double unk_score_;
  size_t longest_ = 1;  // characters of the longest piece
  std::vector<Slot> slots_;
  int slot_shift_;
  std::vector<uint64_t> prefixes_;  // one bit per hash of a piece's beginning: where it is clear, no piece goes on
  int prefix_shift_;
  std::vector<uint32_t> norm_low_;  // for characters up to U+FFFF: 1 + entry of the map, 0: none
};

}  // namespace kogata
