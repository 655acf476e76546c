// The thread pool: one per process, one job at a time, fixed chunks taken dynamically.
#pragma once

#include <cstdint>
#include <type_traits>

namespace kogata {

// Calls body(context, chunk) for every chunk in [0, n_chunks), on this thread and the pool's workers, and returns when
// all are done. Which thread takes which chunk varies; what a chunk is does not, so results never depend on threads.
// While another thread's job is running (or from inside a job) the chunks simply run here, in order.
void parallel_chunks(int64_t n_chunks, void (*body)(void*, int64_t), void* context);

template <class Body>
void parallel_for(int64_t n_chunks, Body&& body) {
  using B = std::remove_reference_t<Body>;
  parallel_chunks(n_chunks, [](void* context, int64_t chunk) { (*static_cast<B*>(context))(chunk); },
                  const_cast<void*>(static_cast<const void*>(&body)));
}

int default_threads();     // what affinity and the cgroup's CPU quota allow
int threads();             // in force now
void set_threads(int n);   // 1 <= n <= 256; waits for a running job

}  // namespace kogata
