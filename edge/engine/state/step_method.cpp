#include "state/step_method.h"

#include <cstring>
#include <utility>

#include "ops/operators.h"

namespace modiff {
namespace {

using executorch::aten::ScalarType;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Method;

using Sizes = executorch::aten::SizesType;
using Order = executorch::aten::DimOrderType;

Error set_tensor(Method& method, size_t index, ScalarType type, int dimensions, Sizes* sizes, void* data) {
  Order order[] = {0, 1, 2, 3};
  Sizes strides[4];
  Sizes stride = 1;
  for (int i = dimensions - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= sizes[i];
  }
  executorch::aten::TensorImpl impl(type, dimensions, sizes, data, order, strides);
  return method.set_input(EValue(executorch::aten::Tensor(&impl)), index);
}

Error set_integer(Method& method, size_t index, int64_t value) {
  Sizes sizes[] = {1};
  return set_tensor(method, index, ScalarType::Long, 1, sizes, &value);
}

}  // namespace

LoadStatus StepMethod::load(LoadedProgram& program) {
  unload();
  const ProgramFacts& facts = program.facts();
  if (!state_.acquire(facts.state_bytes)) {
    return LoadStatus::kNoMemory;
  }
  spans_[0] = {program.activations().data(), program.activations().size()};
  spans_[1] = {state_.data(), state_.size()};
  planned_.emplace(executorch::runtime::Span<executorch::runtime::Span<uint8_t>>(spans_, 2));
  method_memory_.emplace();
  manager_.emplace(&method_memory_.value(), &planned_.value(), &program.temporaries());
  auto method = program.program().load_method("step", &manager_.value(), nullptr, nullptr, nullptr, operator_table());
  if (!method.ok()) {
    unload();
    return to_load_status(method.error());
  }
  method_.emplace(std::move(method.get()));
  return LoadStatus::kOk;
}

void StepMethod::unload() {
  method_.reset();
  manager_.reset();
  planned_.reset();
  method_memory_.reset();
  state_.release();
}

Error StepMethod::run(const ProgramFacts& facts, int64_t step, bool first, float* x) {
  Method& method = *method_;
  Sizes image[] = {1, facts.channels, facts.height, facts.width};
  Error error = set_tensor(method, 0, ScalarType::Float, 4, image, x);
  error = error == Error::Ok ? set_integer(method, 1, step) : error;
  error = error == Error::Ok ? set_integer(method, 2, first ? 1 : 0) : error;
  error = error == Error::Ok ? method.execute() : error;
  if (error != Error::Ok) {
    return error;
  }
  const EValue& output = method.get_output(0);
  if (!output.isTensor() || static_cast<size_t>(output.toTensor().numel()) != facts.values()) {
    return Error::InvalidProgram;
  }
  std::memcpy(x, output.toTensor().const_data_ptr(), facts.values() * sizeof(float));
  return Error::Ok;
}

}  // namespace modiff
