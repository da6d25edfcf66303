#include "ops/operators.h"

#include <cstring>
#include <vector>

#include <executorch/runtime/platform/log.h>

#include "modulated/layer.h"
#include "ops/arguments.h"
#include "ops/float_operators.h"
#include "ops/layer_arguments.h"

namespace modiff {
namespace {

using executorch::runtime::Error;
using executorch::runtime::Kernel;
using executorch::runtime::KernelRuntimeContext;
using executorch::runtime::Span;

const KernelSet* g_kernels = nullptr;
StepStatistics g_statistics;

void run(KernelRuntimeContext& context, const char* name, const LayerCall& call) {
  if (call.problem != nullptr) {
    ET_LOG(Error, "%s: %s (argument %d)", name, call.problem, call.argument);
    context.fail(Error::InvalidArgument);
    return;
  }
  ContextScratch scratch(context);
  const LayerStatus status = run_layer(call.layer, call.step, active_kernels(), scratch, &g_statistics);
  if (status == LayerStatus::kBadPlan) {
    ET_LOG(Error, "%s: step %lld is not in the plan, or its row is damaged", name, static_cast<long long>(call.step));
    context.fail(Error::InvalidArgument);
  } else if (status == LayerStatus::kNoMemory) {
    context.fail(Error::MemoryAllocationFailed);
  }
}

void conv2d_out(KernelRuntimeContext& context, Span<executorch::runtime::EValue*> stack) {
  run(context, "modiff1::conv2d.out", read_conv2d(stack));
}

void linear_out(KernelRuntimeContext& context, Span<executorch::runtime::EValue*> stack) {
  run(context, "modiff1::linear.out", read_linear(stack));
}

bool has_operator(const std::vector<Kernel>& kernels, const char* name) {
  for (const Kernel& kernel : kernels) {
    if (std::strcmp(kernel.name_, name) == 0) {
      return true;
    }
  }
  return false;
}

// Ours first, then the runtime's, so that a lookup finds every operator in one table.
std::vector<Kernel> merged_table() {
  const Span<const Kernel> own = own_operators();
  const Span<const Kernel> floats = float_operators();
  std::vector<Kernel> ours(own.begin(), own.end());
  ours.insert(ours.end(), floats.begin(), floats.end());
  std::vector<Kernel> kernels = ours;
  for (const Kernel& kernel : executorch::runtime::get_registered_kernels()) {
    if (!has_operator(ours, kernel.name_)) {
      kernels.push_back(kernel);
    }
  }
  return kernels;
}

}  // namespace

void use_kernels(const KernelSet* kernels) { g_kernels = kernels; }

const KernelSet& active_kernels() { return *g_kernels; }

StepStatistics& step_statistics() { return g_statistics; }

Span<const Kernel> own_operators() {
  static const Kernel kernels[] = {Kernel("modiff1::conv2d.out", conv2d_out), Kernel("modiff1::linear.out", linear_out)};
  return {kernels, sizeof(kernels) / sizeof(kernels[0])};
}

Span<const Kernel> operator_table() {
  static const std::vector<Kernel> kernels = merged_table();
  return {kernels.data(), kernels.size()};
}

}  // namespace modiff
