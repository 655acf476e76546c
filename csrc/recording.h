// Calls that are kept while they are made, to be made again without the interpreter.
#pragma once

#include <functional>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"

namespace kogata {

// What one thread calls between begin and end. Arrays are kept alive, and are read anew in every repetition, as are the
// checks of what is in them.
class Recording {
 public:
  ~Recording() { end(); }
  void begin() {
    require(current == nullptr, "calls of this thread are being recorded already");
    calls_.clear();
    current = this;
  }
  void end() {
    if (current == this) current = nullptr;
  }
  void repeat() const {
    nb::gil_scoped_release release;
    for (const auto& call : calls_) call();
  }
  template <class Call, class... Kept>
  void add(const Call& call, const Kept&... kept) {
    calls_.emplace_back([call, alive = std::make_tuple(kept...)] { call(); });
  }

  static inline thread_local Recording* current = nullptr;

 private:
  std::vector<std::function<void()>> calls_;
};

// Makes a call that keeps plain pointers, and records it with the arrays they point into.
template <class Call, class... Kept>
void perform(const Call& call, const Kept&... kept) {
  if (Recording::current != nullptr) Recording::current->add(call, kept...);
  nb::gil_scoped_release release;
  call();
}

}  // namespace kogata
