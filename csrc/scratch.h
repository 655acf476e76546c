// Scratch memory of the calling thread: grows, is reused, is freed with the thread.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace kogata {

class Scratch {
 public:
  ~Scratch() { std::free(data_); }
  void* get(std::size_t bytes) {  // 64-byte aligned, contents undefined
    if (bytes > size_) {
      const std::size_t rounded = (bytes + bytes / 4 + 4095) / 4096 * 4096;
      std::free(data_);
      size_ = 0;
      data_ = std::aligned_alloc(64, rounded);
      if (data_ == nullptr) throw std::bad_alloc();
      size_ = rounded;
    }
    return data_;
  }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace kogata
