// Many short jobs of varying size: every chunk must run exactly once, and no job may wait for ever.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "pool.h"

int main(int, char** arguments) {
  const int n_threads = std::atoi(arguments[1]), seconds = std::atoi(arguments[2]);
  kogata::set_threads(n_threads);
  static std::atomic<long> jobs{0};
  std::thread([] {
    for (long before = -1; before != jobs; std::this_thread::sleep_for(std::chrono::seconds(5))) before = jobs;
    std::printf("hangs after %ld jobs\n", jobs.load());
    std::_Exit(2);
  }).detach();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  uint32_t random = 1;
  while (std::chrono::steady_clock::now() < end) {
    random = random * 1664525u + 1013904223u;
    const int n = 2 + static_cast<int>(random >> 24) % 7;
    std::vector<std::atomic<int>> runs(8);
    kogata::parallel_for(n, [&](int64_t chunk) { runs[chunk].fetch_add(1); });
    for (int chunk = 0; chunk < 8; ++chunk) {
      if (runs[chunk] != (chunk < n)) {
        std::printf("job %ld of %d chunks ran chunk %d %d times\n", jobs.load(), n, chunk, runs[chunk].load());
        return 1;
      }
    }
    ++jobs;
  }
  std::printf("%ld jobs\n", jobs.load());
}
