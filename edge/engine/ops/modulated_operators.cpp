#include "ops/modulated_operators.h"

#include <executorch/runtime/platform/log.h>

#include "modulated/layer.h"
#include "ops/layer_arguments.h"
#include "ops/mapped_memory.h"
#include "ops/process.h"
#include "ops/thread_pool.h"

namespace modiff {
namespace {

using executorch::runtime::Error;
using executorch::runtime::Kernel;
using executorch::runtime::KernelRuntimeContext;
using executorch::runtime::Span;

constexpr char kConv2d[] = "modiff::conv2d.out";
constexpr char kLinear[] = "modiff::linear.out";

// Residual weights are read at few steps: between them they stay in the file.
void release_residual_weights(const LayerCall& call, uint64_t passes_before) {
  const Layer& layer = call.layer;
  PlanRow next;
  const bool comes_again = call.step + 1 < layer.steps && read_row(layer.table + (call.step + 1) * kPlanColumns, &next) &&
                           next.residual.count > 0;
  if (step_statistics().residual_passes > passes_before && !comes_again) {
    release_mapped(layer.weight[1], static_cast<size_t>(layer.geometry.packed_weight_bytes()));
  }
}

void run(KernelRuntimeContext& context, const char* name, const LayerCall& call) {
  if (call.problem != nullptr) {
    ET_LOG(Error, "%s: %s (argument %d)", name, call.problem, call.argument);
    context.fail(Error::InvalidArgument);
    return;
  }
  ContextScratch scratch(context);
  const uint64_t residual_passes = step_statistics().residual_passes;
  const LayerStatus status =
      run_layer(call.layer, call.step, active_kernels(), thread_pool(), scratch, &step_statistics());
  if (status == LayerStatus::kBadPlan) {
    ET_LOG(Error, "%s: step %lld is not in the plan, or its row is damaged", name, static_cast<long long>(call.step));
    context.fail(Error::InvalidArgument);
  } else if (status == LayerStatus::kNoMemory) {
    context.fail(Error::MemoryAllocationFailed);
  }
  release_residual_weights(call, residual_passes);
}

void conv2d_out(KernelRuntimeContext& context, Stack stack) { run(context, kConv2d, read_conv2d(stack)); }

void linear_out(KernelRuntimeContext& context, Stack stack) { run(context, kLinear, read_linear(stack)); }

}  // namespace

Span<const Kernel> modulated_operators() {
  static const Kernel kernels[] = {Kernel(kConv2d, conv2d_out), Kernel(kLinear, linear_out)};
  return {kernels, sizeof(kernels) / sizeof(kernels[0])};
}

}  // namespace modiff
