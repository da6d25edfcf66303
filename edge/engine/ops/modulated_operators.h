// modiff::conv2d.out and modiff::linear.out.
#pragma once

#include <executorch/runtime/core/span.h>
#include <executorch/runtime/kernel/operator_registry.h>

namespace modiff {

executorch::runtime::Span<const executorch::runtime::Kernel> modulated_operators();

}  // namespace modiff
