#include "state/constants.h"

#include <executorch/runtime/executor/memory_manager.h>
#include <executorch/runtime/executor/method.h>

#include "state/memory.h"

namespace modiff {
namespace {

using executorch::aten::ScalarType;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::HierarchicalAllocator;
using executorch::runtime::MemoryManager;
using executorch::runtime::Program;
using executorch::runtime::Span;

constexpr int64_t kMostConstantBytes = 1 << 20;

// Runs the method and hands its output to `use` while the method is alive; false from `use`: not the type wanted.
template <typename Use>
LoadStatus with_output(const Program& program, const char* name, Use use) {
  const auto meta = program.method_meta(name);
  if (!meta.ok() || meta->num_inputs() != 0 || meta->num_outputs() != 1 || meta->num_memory_planned_buffers() > 1) {
    return LoadStatus::kUnreadable;
  }
  Region arena;
  Span<uint8_t> spans[1];
  const size_t arenas = meta->num_memory_planned_buffers();
  if (arenas == 1) {
    const int64_t bytes = meta->memory_planned_buffer_size(0).get();
    if (bytes < 0 || bytes > kMostConstantBytes) {
      return LoadStatus::kUnreadable;
    }
    if (!arena.acquire(static_cast<size_t>(bytes))) {
      return LoadStatus::kNoMemory;
    }
    spans[0] = {arena.data(), arena.size()};
  }
  HierarchicalAllocator planned({spans, arenas});
  GrowingAllocator memory;
  GrowingAllocator temporaries;
  MemoryManager manager(&memory, &planned, &temporaries);
  auto method = program.load_method(name, &manager);
  const Error error = method.ok() ? method->execute() : method.error();
  if (error != Error::Ok) {
    return to_load_status(error);
  }
  return use(method->get_output(0)) ? LoadStatus::kOk : LoadStatus::kUnreadable;
}

}  // namespace

LoadStatus read_integer(const Program& program, const char* method, int64_t* value) {
  return with_output(program, method, [value](const EValue& output) {
    if (!output.isInt()) {
      return false;
    }
    *value = output.toInt();
    return true;
  });
}

LoadStatus read_floats(const Program& program, const char* method, std::vector<float>* values) {
  return with_output(program, method, [values](const EValue& output) {
    if (output.isDouble()) {
      values->assign(1, static_cast<float>(output.toDouble()));
      return true;
    }
    if (!output.isTensor() || output.toTensor().scalar_type() != ScalarType::Float) {
      return false;
    }
    const auto& tensor = output.toTensor();
    const float* data = tensor.const_data_ptr<float>();
    if (data == nullptr || tensor.numel() < 1) {
      return false;
    }
    values->assign(data, data + tensor.numel());
    return true;
  });
}

}  // namespace modiff
