// What the operators of this process share: kernels, threads, counters.
#pragma once

#include "kernels/kernel_set.h"
#include "modulated/statistics.h"

namespace modiff {

// Must be called before the first step.
void use_kernels(const KernelSet* kernels);
const KernelSet& active_kernels();

// Of the process; the operators add to it.
StepStatistics& step_statistics();

}  // namespace modiff
