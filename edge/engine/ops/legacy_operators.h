// modiff1::conv2d.out and modiff1::linear.out: operator set 1, channels first and without prologue and epilogue, on the
// kernels of set 2.
#pragma once

#include <executorch/runtime/core/span.h>
#include <executorch/runtime/kernel/operator_registry.h>

namespace modiff {

executorch::runtime::Span<const executorch::runtime::Kernel> legacy_operators();

}  // namespace modiff
