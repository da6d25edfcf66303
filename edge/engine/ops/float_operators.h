// aten::sigmoid.out, aten::_softmax.out and aten::permute_copy.out on contiguous float32: faster than the runtime's, and
// the same bits on every machine. Anything else goes on to the runtime's own operator.
#pragma once

#include <executorch/runtime/core/span.h>
#include <executorch/runtime/kernel/operator_registry.h>

namespace modiff {

executorch::runtime::Span<const executorch::runtime::Kernel> float_operators();

}  // namespace modiff
