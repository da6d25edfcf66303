// Tasks that may run side by side. No result depends on how many do: each output element is computed by one task, in the
// order that a single thread would use.
#pragma once

#include <cstdint>

namespace modiff {

class Parallel {
 public:
  using Task = void (*)(void* context, int64_t index);

  virtual ~Parallel() = default;

  virtual int threads() const = 0;
  // Runs task(context, i) for i in [0, count), and returns when all are done.
  virtual void run(int64_t count, Task task, void* context) = 0;
};

// One after the other, on the calling thread.
class Serial final : public Parallel {
 public:
  int threads() const override { return 1; }
  void run(int64_t count, Task task, void* context) override {
    for (int64_t i = 0; i < count; ++i) {
      task(context, i);
    }
  }
};

template <typename Function>
void for_each(Parallel& parallel, int64_t count, Function function) {
  parallel.run(
      count, [](void* context, int64_t index) { (*static_cast<Function*>(context))(index); }, &function);
}

}  // namespace modiff
