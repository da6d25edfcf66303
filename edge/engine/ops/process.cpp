#include "ops/process.h"

namespace modiff {
namespace {

const KernelSet* g_kernels = nullptr;
StepStatistics g_statistics;

}  // namespace

void use_kernels(const KernelSet* kernels) { g_kernels = kernels; }

const KernelSet& active_kernels() { return *g_kernels; }

StepStatistics& step_statistics() { return g_statistics; }

}  // namespace modiff
