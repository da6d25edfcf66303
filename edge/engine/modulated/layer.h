// One step of one modulated layer: prologue, plan row, passes, state, epilogue (the arithmetic of calib/lattice.py).
#pragma once

#include <cstdint>

#include "kernels/kernel_set.h"
#include "modulated/convolution.h"
#include "modulated/geometry.h"
#include "modulated/parallel.h"
#include "modulated/plan_row.h"
#include "modulated/prologue.h"
#include "modulated/refreshes.h"
#include "modulated/scratch.h"
#include "modulated/statistics.h"

namespace modiff {

constexpr int kMaxPlanes = 2;

struct Layer {
  Geometry geometry;      // of the upsampled input
  Prologue prologue;      // of the input as it comes
  int64_t upsample = 1;
  ImageVector shift;
  Activation out_activation = Activation::kNone;
  ImageVector gate;
  const float* add = nullptr;  // in the output's shape
  float* output = nullptr;     // [batch][out_height][out_width][out_channels]
  int16_t* lattice = nullptr;  // [planes][batch][height / upsample][width / upsample][channels]; not read when direct
  int32_t* accumulator = nullptr;  // [planes][batch][out_height][out_width][out_channels]; not read when direct
  float* history = nullptr;        // in the output's shape, nullptr when not kept
  int32_t* counters = nullptr;     // [kCounters]; not read when direct
  const int8_t* weight[kMaxPlanes] = {};
  const float* scale = nullptr;   // [planes][out_channels]
  const float* bias = nullptr;    // [out_channels]
  const int8_t* table = nullptr;  // [steps + 1][kPlanColumns]; the last row is the anchor
  int64_t steps = 0;
  int planes = 1;
  float inverse_step = 0.0F;
  int lattice_bits = 0;  // 2..16
  bool direct = false;

  int64_t lattice_elements() const { return geometry.input_elements() / (upsample * upsample); }
};

enum class LayerStatus { kOk, kBadPlan, kNoMemory };

LayerStatus run_layer(const Layer& layer, int64_t step, const KernelSet& kernels, Parallel& parallel, Scratch& scratch,
                      StepStatistics* statistics);

}  // namespace modiff
