// The kit's operators as ExecuTorch kernels: modiff::conv2d.out and modiff::linear.out.
//
// A kernel checks every tensor it is given and fails its context; it never aborts. edge/operators.py documents the
// shapes. Which kernel set the operators use, and where they count, is set once per process.
#pragma once

#include <executorch/runtime/core/span.h>
#include <executorch/runtime/kernel/operator_registry.h>

#include "kernels/kernel_set.h"
#include "modulated/statistics.h"

namespace modiff {

// Must be called before the first step.
void use_kernels(const KernelSet* kernels);
const KernelSet& active_kernels();

// Of the process; the operators add to it.
StepStatistics& step_statistics();

// The kit's own operators.
executorch::runtime::Span<const executorch::runtime::Kernel> own_operators();

// Those and the runtime's: the table to hand to Program::load_method. An operator of ours takes the place of the
// runtime's of the same name. Lives as long as the process.
executorch::runtime::Span<const executorch::runtime::Kernel> operator_table();

}  // namespace modiff
