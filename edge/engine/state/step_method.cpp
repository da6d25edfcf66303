#include "state/step_method.h"

#include <cstring>
#include <utility>
#include <vector>

#include "ops/operators.h"

namespace modiff {
namespace {

using executorch::aten::ScalarType;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Method;

using Sizes = executorch::aten::SizesType;
using Order = executorch::aten::DimOrderType;

// The runtime copies the values; it does not change them.
Error set_tensor(Method& method, size_t index, ScalarType type, std::vector<Sizes> sizes, const void* data) {
  const size_t dimensions = sizes.size();
  std::vector<Order> order(dimensions);
  std::vector<Sizes> strides(dimensions);
  Sizes stride = 1;
  for (size_t i = dimensions; i-- > 0;) {
    order[i] = static_cast<Order>(i);
    strides[i] = stride;
    stride *= sizes[i];
  }
  executorch::aten::TensorImpl impl(type, static_cast<ssize_t>(dimensions), sizes.data(), const_cast<void*>(data),
                                    order.data(), strides.data());
  return method.set_input(EValue(executorch::aten::Tensor(&impl)), index);
}

Error set_integer(Method& method, size_t index, int64_t value) {
  return set_tensor(method, index, ScalarType::Long, {1}, &value);
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

Error StepMethod::set_inputs(const ProgramFacts& facts, const StepInputs& inputs, float* x) {
  Method& method = *method_;
  const std::vector<Sizes> image = {1, facts.channels, facts.height, facts.width};
  size_t index = 0;
  Error error = set_tensor(method, index++, ScalarType::Float, image, x);
  error = error == Error::Ok ? set_integer(method, index++, inputs.step) : error;
  error = error == Error::Ok ? set_integer(method, index++, inputs.first ? 1 : 0) : error;
  if (error == Error::Ok && facts.draws_noise) {
    error = set_tensor(method, index++, ScalarType::Float, image, inputs.noise);
  }
  const uint8_t* condition = inputs.conditions;
  for (const ConditionFacts& expected : facts.conditions) {
    if (error != Error::Ok) {
      return error;
    }
    const ScalarType type = expected.is_float ? ScalarType::Float : ScalarType::Long;
    error = set_tensor(method, index++, type, expected.sizes, condition);
    condition += expected.bytes;
  }
  return error;
}

Error StepMethod::run(const ProgramFacts& facts, const StepInputs& inputs, float* x) {
  Method& method = *method_;
  Error error = set_inputs(facts, inputs, x);
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
