#include "ops/thread_pool.h"

#include <sched.h>

#include <cstddef>
#include <cstdint>

#include <executorch/runtime/core/function_ref.h>

// The wheel carries libexecutorch_threadpool.so without this header (extension/threadpool/threadpool.h, 1.5.1).
namespace executorch::extension::threadpool {
class ThreadPool final {
 public:
  bool _unsafe_reset_threadpool(uint32_t num_threads);
  void run(runtime::FunctionRef<void(size_t)> function, size_t range);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace modiff {
namespace {

using executorch::extension::threadpool::get_threadpool;
using executorch::extension::threadpool::ThreadPool;

class PoolParallel final : public Parallel {
 public:
  int threads() const override { return threads_; }

  void run(int64_t count, Task task, void* context) override {
    if (threads_ == 1 || count <= 1) {
      Serial().run(count, task, context);
      return;
    }
    const auto one = [&](size_t index) { task(context, static_cast<int64_t>(index)); };
    get_threadpool()->run(one, static_cast<size_t>(count));
  }

  bool use(int threads) {
    ThreadPool* pool = get_threadpool();
    if (pool == nullptr || !pool->_unsafe_reset_threadpool(static_cast<uint32_t>(threads))) {
      return threads == 1;
    }
    threads_ = threads;
    return true;
  }

 private:
  int threads_ = 1;
};

PoolParallel g_pool;

}  // namespace

int cores() {
  cpu_set_t allowed;
  // It fails where there are more than a set holds.
  return sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? CPU_COUNT(&allowed) : CPU_SETSIZE;
}

bool use_threads(int threads) { return g_pool.use(threads); }

Parallel& thread_pool() { return g_pool; }

}  // namespace modiff
