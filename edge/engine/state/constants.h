// Constant methods of a program: no inputs, one output.
#pragma once

#include <cstdint>
#include <vector>

#include <executorch/runtime/executor/program.h>

#include "state/load_status.h"

namespace modiff {

// kUnreadable when there is no such method, or its output is of another type.
LoadStatus read_integer(const executorch::runtime::Program& program, const char* method, int64_t* value);

// A float32 tensor's values in order, or a single number.
LoadStatus read_floats(const executorch::runtime::Program& program, const char* method, std::vector<float>* values);

}  // namespace modiff
