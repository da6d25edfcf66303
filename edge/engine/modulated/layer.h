// One step of one modulated layer: plan row, passes, state, output (the arithmetic of calib/lattice.py).
#pragma once

#include <cstdint>

#include "kernels/kernel_set.h"
#include "modulated/delta_plane.h"
#include "modulated/geometry.h"
#include "modulated/scratch.h"
#include "modulated/statistics.h"

namespace modiff {

constexpr int kPlanColumns = 8;
constexpr int kMaxPasses = 2;
constexpr int kMaxPlanes = 2;
constexpr int kMaxExponent = 15;

// counters[]: how often the layer was refreshed (0 = fresh), at which step last, and at which the time before.
enum Counter { kRefreshes = 0, kLastStep = 1, kPreviousStep = 2, kCounters = 4 };

struct Layer {
  Geometry geometry;
  LayerInput input;      // and the output lies as the input does
  float* output;         // [batch][out_channels][out_height][out_width], or channels last
  int16_t* lattice;      // [planes][batch][height][width][channels]; not read when direct
  int32_t* accumulator;  // [planes][batch][out_height][out_width][out_channels]; not read when direct
  float* history;        // [batch][out_height][out_width][out_channels], nullptr when not kept
  int32_t* counters;     // [kCounters]; not read when direct
  const int8_t* weight[kMaxPlanes];
  const float* scale;   // [planes][out_channels]
  const float* bias;    // [out_channels]
  const int8_t* table;  // [steps + 1][kPlanColumns]; the last row is the anchor
  int64_t steps;
  int planes;
  float inverse_step;
  int lattice_bits;  // 2..16
  bool direct;
};

enum class LayerStatus { kOk, kBadPlan, kNoMemory };

LayerStatus run_layer(const Layer& layer, int64_t step, const KernelSet& kernels, Scratch& scratch,
                      StepStatistics* statistics);

}  // namespace modiff
