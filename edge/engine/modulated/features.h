// The float operators between modulated layers, on whole tensors.
#pragma once

#include <cstdint>

#include "kernels/kernel_set.h"
#include "modulated/parallel.h"
#include "modulated/prologue.h"
#include "modulated/scratch.h"

namespace modiff {

// The prologue of [images][height][width] positions, each written upsample x upsample times. False: no memory.
bool normalize(const Prologue& prologue, int64_t width, int64_t upsample, const KernelSet& kernels, Parallel& parallel,
               Scratch& scratch, float* out);

struct Attention {
  const float* q;  // [images][queries][heads * depth]; out likewise
  const float* k;  // [images][keys][heads * depth]; v likewise
  const float* v;
  float* out;
  int64_t images;
  int64_t queries;
  int64_t keys;
  int64_t heads;
  int64_t depth;
  float scale;
};

bool attend(const Attention& attention, const KernelSet& kernels, Parallel& parallel, Scratch& scratch);

// out = function(a, b), b a tensor like a or a vector for each position: [images][positions][channels].
struct Pairwise {
  const float* a;
  const float* b;
  bool b_is_vector;
  bool b_per_image;
  int64_t images;
  int64_t positions;
  int64_t channels;
  float* out;
};

using PairFunction = void (*)(const float* a, const float* b, size_t count, float* out);

void pairwise(const Pairwise& job, PairFunction function, Parallel& parallel);

// The output of a block that is not computed at every step.
struct ReusePoint {
  const float* x;
  float* held;
  float* history;     // nullptr: never extrapolates
  int32_t* counters;  // as a layer's
  int8_t kind;        // 0 refresh, 1 hold, 2 extrapolate; a fresh point is refreshed, whatever it says
  int64_t count;
  float* out;
};

void reuse(const ReusePoint& point, int64_t step, const KernelSet& kernels, Parallel& parallel);

}  // namespace modiff
