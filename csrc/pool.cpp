#include "pool.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace kogata {
namespace {

inline void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// About 30 us of spinning: longer than the gap between two operators of a forward pass, shorter than anyone notices.
constexpr int kSpins = 1000;

constexpr uint64_t ticket(uint32_t epoch, uint32_t left) { return (static_cast<uint64_t>(epoch) << 32) | left; }

class Pool {
 public:
  explicit Pool(int n) : n_workers_(n - 1) {
    for (int i = 0; i < n_workers_; ++i) std::thread([this] { work(); }).detach();
  }

  bool try_run(int64_t n_chunks, void (*body)(void*, int64_t), void* context) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    const uint32_t epoch = ++epoch_;
    body_.store(body, std::memory_order_release);
    context_.store(context, std::memory_order_release);
    n_chunks_.store(static_cast<uint32_t>(n_chunks), std::memory_order_release);
    done_.store(0, std::memory_order_relaxed);
    state_.store(ticket(epoch, static_cast<uint32_t>(n_chunks)), std::memory_order_seq_cst);
    wake_.fetch_add(1, std::memory_order_seq_cst);
    if (parked_.load(std::memory_order_seq_cst) > 0) wake_.notify_all();
    take_chunks(epoch);
    const auto n = static_cast<uint32_t>(n_chunks);
    for (int spin = 0; done_.load(std::memory_order_acquire) != n; ++spin) {
      if (spin < kSpins) {
        relax();
      } else {
        const uint32_t seen = done_.load(std::memory_order_acquire);
        if (seen != n) done_.wait(seen, std::memory_order_acquire);
      }
    }
    busy_.store(false, std::memory_order_release);
    return true;
  }

  // Ends the workers once the running job, if any, is done. The object itself is leaked on purpose: a worker may still
  // be reading it on its way out. It stays busy, so a late caller runs its chunks by itself.
  void retire() {
    while (busy_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
    retired_.store(true, std::memory_order_seq_cst);
    wake_.fetch_add(1, std::memory_order_seq_cst);
    wake_.notify_all();
  }

 private:
  // A chunk is taken by lowering {epoch, chunks left} in one compare-and-swap, so a worker that wakes late can never
  // take a chunk of a job it has not read: a swap that succeeds shows that the job of that epoch had chunks left all
  // along, and its fields change only once it has none. (Counting up against n_chunks_ would not do: a worker of the
  // old epoch could see the next job's larger number.)
  void take_chunks(uint32_t epoch) {
    uint64_t state = state_.load(std::memory_order_acquire);
    while (static_cast<uint32_t>(state >> 32) == epoch) {
      const auto left = static_cast<uint32_t>(state);
      if (left == 0) return;
      auto* body = body_.load(std::memory_order_relaxed);
      void* context = context_.load(std::memory_order_relaxed);
      const uint32_t n = n_chunks_.load(std::memory_order_relaxed);
      if (!state_.compare_exchange_weak(state, ticket(epoch, left - 1), std::memory_order_acq_rel)) continue;
      body(context, n - left);
      if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == n) done_.notify_one();
      state = state_.load(std::memory_order_acquire);
    }
  }

  void work() {
    uint32_t seen = 0;
    while (!retired_.load(std::memory_order_acquire)) {
      for (int spin = 0; spin < kSpins && wake_.load(std::memory_order_acquire) == seen; ++spin) relax();
      parked_.fetch_add(1, std::memory_order_seq_cst);
      wake_.wait(seen, std::memory_order_seq_cst);
      parked_.fetch_sub(1, std::memory_order_seq_cst);
      seen = wake_.load(std::memory_order_acquire);
      take_chunks(static_cast<uint32_t>(state_.load(std::memory_order_acquire) >> 32));
    }
  }

  const int n_workers_;
  std::atomic<bool> busy_{false};
  uint32_t epoch_ = 0;
  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<uint32_t> done_{0};
  alignas(64) std::atomic<uint32_t> wake_{0};
  std::atomic<int> parked_{0};
  std::atomic<bool> retired_{false};
  std::atomic<void (*)(void*, int64_t)> body_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<uint32_t> n_chunks_{0};
};

std::atomic<Pool*> g_pool{nullptr};
std::atomic<int> g_threads{0};
std::mutex* g_making = new std::mutex;  // replaced in a forked child, where a vanished thread may hold it

#if defined(__unix__) || defined(__APPLE__)
void after_fork_in_child() {
  // The workers do not exist in the child and the old pool may be busy for ever: start afresh on first use.
  g_pool.store(nullptr, std::memory_order_relaxed);
  g_making = new std::mutex;
}
const int g_fork_handler = pthread_atfork(nullptr, nullptr, after_fork_in_child);
#endif

Pool* pool() {
  Pool* p = g_pool.load(std::memory_order_acquire);
  if (p != nullptr) return p;
  std::lock_guard lock(*g_making);
  p = g_pool.load(std::memory_order_acquire);
  if (p == nullptr) {
    p = new Pool(threads());
    g_pool.store(p, std::memory_order_release);
  }
  return p;
}

#if defined(__linux__)
// CPU quota of this process's cgroup in whole processors (at least 1), or 0 where there is none. Version 2 has
// "cpu.max" in every group from the process's up to the root, version 1 "cpu.cfs_quota_us" and "cpu.cfs_period_us".
int cgroup_quota() {
  double least = 0;
  auto consider = [&least](double quota, double period) {
    if (quota > 0 && period > 0 && (least == 0 || quota / period < least)) least = quota / period;
  };
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    const bool v2 = controllers.empty();
    const std::string padded = "," + controllers + ",";
    if (!v2 && padded.find(",cpu,") == std::string::npos) continue;
    for (;;) {
      const std::string up = path == "/" ? "" : path;
      for (const char* root : {"/sys/fs/cgroup", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"}) {
        const std::string base = root + up;
        double quota = 0, period = 0;
        if (v2) {
          std::ifstream file(base + "/cpu.max");
          if (file >> quota >> period) consider(quota, period);
        } else {
          std::ifstream quota_file(base + "/cpu.cfs_quota_us"), period_file(base + "/cpu.cfs_period_us");
          if (quota_file >> quota && period_file >> period) consider(quota, period);
        }
      }
      if (up.empty()) break;
      path = path.substr(0, path.rfind('/'));
      if (path.empty()) path = "/";
    }
  }
  return least == 0 ? 0 : std::max(1, static_cast<int>(least));
}
#endif

}  // namespace

int default_threads() {
  int n = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
  const int quota = cgroup_quota();
  if (quota > 0) n = std::min(n, quota);
#endif
  return std::clamp(n, 1, 256);
}

int threads() {
  int n = g_threads.load(std::memory_order_acquire);
  if (n == 0) {
    int expected = 0;
    g_threads.compare_exchange_strong(expected, default_threads(), std::memory_order_acq_rel);
    n = g_threads.load(std::memory_order_acquire);
  }
  return n;
}

void set_threads(int n) {
  std::lock_guard lock(*g_making);
  if (n == g_threads.load(std::memory_order_acquire)) return;
  g_threads.store(n, std::memory_order_release);
  if (Pool* old = g_pool.exchange(nullptr, std::memory_order_acq_rel)) old->retire();
}

void parallel_chunks(int64_t n_chunks, void (*body)(void*, int64_t), void* context) {
  if (n_chunks <= 1 || threads() == 1 || n_chunks > INT32_MAX || !pool()->try_run(n_chunks, body, context)) {
    for (int64_t chunk = 0; chunk < n_chunks; ++chunk) body(context, chunk);
  }
}

}  // namespace kogata
