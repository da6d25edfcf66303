// From accumulators to the layer's float output.
#pragma once

#include "kernels/kernel_set.h"
#include "modulated/geometry.h"
#include "modulated/scratch.h"

namespace modiff {

// y = fl(y1 + fl(share * fl(y1 - y0))), with y0 the output before the newest refresh; off without a history.
struct Extrapolation {
  const float* history;
  float share;
};

struct OutputSource {
  const Geometry* geometry;
  const int32_t* accumulator;  // [batch][out_height][out_width][out_channels]
  const int32_t* residual;     // nullptr without a residual plane
  const float* scale;
  const float* residual_scale;
  const float* bias;
  Extrapolation extrapolation;
};

// The output as it stands, channels last, without extrapolation.
void read_history(const OutputSource& source, const KernelSet& kernels, float* history);

// False when there is no memory.
bool write_output(const OutputSource& source, const KernelSet& kernels, Scratch& scratch, bool channels_first,
                  float* output);

}  // namespace modiff
