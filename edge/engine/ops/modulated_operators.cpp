#include "ops/modulated_operators.h"

#include <executorch/runtime/platform/log.h>

#include "modulated/layer.h"
#include "ops/layer_arguments.h"
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

void run(KernelRuntimeContext& context, const char* name, const LayerCall& call) {
  if (call.problem != nullptr) {
    ET_LOG(Error, "%s: %s (argument %d)", name, call.problem, call.argument);
    context.fail(Error::InvalidArgument);
    return;
  }
  ContextScratch scratch(context);
  const LayerStatus status =
      run_layer(call.layer, call.step, active_kernels(), thread_pool(), scratch, &step_statistics());
  if (status == LayerStatus::kBadPlan) {
    ET_LOG(Error, "%s: step %lld is not in the plan, or its row is damaged", name, static_cast<long long>(call.step));
    context.fail(Error::InvalidArgument);
  } else if (status == LayerStatus::kNoMemory) {
    context.fail(Error::MemoryAllocationFailed);
  }
}

void conv2d_out(KernelRuntimeContext& context, Stack stack) { run(context, kConv2d, read_conv2d(stack)); }

void linear_out(KernelRuntimeContext& context, Stack stack) { run(context, kLinear, read_linear(stack)); }

}  // namespace

Span<const Kernel> modulated_operators() {
  static const Kernel kernels[] = {Kernel(kConv2d, conv2d_out), Kernel(kLinear, linear_out)};
  return {kernels, sizeof(kernels) / sizeof(kernels[0])};
}

}  // namespace modiff
