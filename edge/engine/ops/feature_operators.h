// modiff::normalize, attention, add, multiply, activate and reuse (.out): the float operators between modulated layers.
#pragma once

#include <executorch/runtime/core/span.h>
#include <executorch/runtime/kernel/operator_registry.h>

namespace modiff {

executorch::runtime::Span<const executorch::runtime::Kernel> feature_operators();

}  // namespace modiff
