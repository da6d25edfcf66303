// From an operator's argument stack to a checked Layer.
#pragma once

#include <cstdint>

#include "modulated/layer.h"
#include "ops/prologue_arguments.h"

namespace modiff {

struct LayerCall {
  Layer layer;
  int64_t step;
  const char* problem;  // nullptr when every argument is sound
  int argument;         // index of the offending one, -1 when it is their combination
};

LayerCall read_conv2d(Stack stack);
LayerCall read_linear(Stack stack);

}  // namespace modiff
