// Every operator that a program may call: the kit's own and the runtime's.
//
// A kernel of ours checks every tensor it is given and fails its context; it never aborts. edge/operators.py documents
// what they compute. Which kernel set they use, how many threads, and where they count is set once per process.
#pragma once

#include <executorch/runtime/core/span.h>
#include <executorch/runtime/kernel/operator_registry.h>

#include "ops/process.h"

namespace modiff {

// The kit's own operators, and those of PyTorch that it computes itself.
executorch::runtime::Span<const executorch::runtime::Kernel> own_operators();

// The kit's operators, those of PyTorch that it computes itself, and the runtime's: the table to hand to
// Program::load_method. An operator of ours takes the place of the runtime's of the same name. Lives as long as the
// process.
executorch::runtime::Span<const executorch::runtime::Kernel> operator_table();

}  // namespace modiff
