// The method `step`, bound to a state arena of its own and to the activation arena that all slots share.
#pragma once

#include <cstdint>
#include <optional>

#include <executorch/runtime/core/hierarchical_allocator.h>
#include <executorch/runtime/executor/memory_manager.h>
#include <executorch/runtime/executor/method.h>

#include "state/memory.h"
#include "state/program.h"

namespace modiff {

// What a step is called with beside the sample.
struct StepInputs {
  int64_t step;
  bool first;                 // of its job
  const float* noise;         // as many values as the image has, where the program draws noise
  const uint8_t* conditions;  // facts.condition_bytes, one after the other
};

class StepMethod {
 public:
  // Acquires the state arena and loads the method; the program must outlive this object.
  LoadStatus load(LoadedProgram& program);
  // Frees the arena.
  void unload();

  bool loaded() const { return method_.has_value(); }
  Region& state() { return state_; }
  const Region& state() const { return state_; }

  // Runs a step on `x` in place: float32, as many values as the program's image has.
  executorch::runtime::Error run(const ProgramFacts& facts, const StepInputs& inputs, float* x);

 private:
  executorch::runtime::Error set_inputs(const ProgramFacts& facts, const StepInputs& inputs, float* x);

  Region state_;
  std::optional<GrowingAllocator> method_memory_;
  executorch::runtime::Span<uint8_t> spans_[2];
  std::optional<executorch::runtime::HierarchicalAllocator> planned_;
  std::optional<executorch::runtime::MemoryManager> manager_;
  std::optional<executorch::runtime::Method> method_;
};

}  // namespace modiff
