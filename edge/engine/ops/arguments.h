// Typed, checked reading of an operator's argument stack.
#pragma once

#include <cstdint>

#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/span.h>
#include <executorch/runtime/kernel/kernel_runtime_context.h>

#include "modulated/scratch.h"

namespace modiff {

using Stack = executorch::runtime::Span<executorch::runtime::EValue*>;
using Tensor = executorch::aten::Tensor;
using ScalarType = executorch::aten::ScalarType;

// Reads arguments in order and remembers the first that is not what it should be.
class ArgumentReader {
 public:
  explicit ArgumentReader(Stack stack) : stack_(stack) {}

  bool ok() const { return failed_at_ < 0; }
  // Index of the first bad argument, -1 when all were good.
  int failed_at() const { return failed_at_; }

  // A contiguous tensor of this type; nullptr otherwise.
  const Tensor* tensor(ScalarType type);
  // The same, or nullptr where the argument is None.
  const Tensor* optional_tensor(ScalarType type);
  double number();
  int64_t integer();
  bool flag();
  // Exactly two integers.
  void pair(int64_t* first, int64_t* second);
  // Exactly `count` integers; they live as long as the program. nullptr otherwise.
  const int64_t* integers(size_t count);

 private:
  executorch::runtime::EValue* next();
  const Tensor* checked(executorch::runtime::EValue* value, ScalarType type);
  void fail();

  Stack stack_;
  size_t index_ = 0;
  int failed_at_ = -1;
};

// Scratch memory out of the kernel context's temporary allocator.
class ContextScratch final : public Scratch {
 public:
  explicit ContextScratch(executorch::runtime::KernelRuntimeContext& context) : context_(context) {}
  void* allocate_bytes(size_t bytes) override;

 private:
  executorch::runtime::KernelRuntimeContext& context_;
};

}  // namespace modiff
