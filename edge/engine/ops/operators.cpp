#include "ops/operators.h"

#include <executorch/runtime/platform/log.h>

#include "modulated/layer.h"
#include "ops/arguments.h"
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
  run(context, "modiff::conv2d.out", read_conv2d(stack));
}

void linear_out(KernelRuntimeContext& context, Span<executorch::runtime::EValue*> stack) {
  run(context, "modiff::linear.out", read_linear(stack));
}

}  // namespace

void use_kernels(const KernelSet* kernels) { g_kernels = kernels; }

const KernelSet& active_kernels() { return *g_kernels; }

StepStatistics& step_statistics() { return g_statistics; }

Span<const Kernel> operator_table() {
  static const Kernel kernels[] = {Kernel("modiff::conv2d.out", conv2d_out), Kernel("modiff::linear.out", linear_out)};
  return {kernels, sizeof(kernels) / sizeof(kernels[0])};
}

}  // namespace modiff
