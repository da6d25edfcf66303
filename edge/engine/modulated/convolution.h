// The integer convolution and what follows it: taps walk over the delta plane, no im2col buffer, and each piece of the
// accumulator becomes output while it is still in the cache.
#pragma once

#include "kernels/kernel_set.h"
#include "modulated/delta_plane.h"
#include "modulated/geometry.h"
#include "modulated/parallel.h"
#include "modulated/prologue.h"
#include "modulated/scratch.h"

namespace modiff {

// What turns accumulators into outputs; every tensor is [batch][out_height][out_width][out_channels].
struct Epilogue {
  const int32_t* residual = nullptr;  // accumulator of the second plane
  const float* scale = nullptr;       // [out_channels]
  const float* residual_scale = nullptr;
  const float* bias = nullptr;
  const float* history = nullptr;  // nullptr: no extrapolation
  float share = 0.0F;
  ImageVector shift;
  Activation activation = Activation::kNone;
  ImageVector gate;
  const float* add = nullptr;
  float* out = nullptr;  // nullptr: accumulate only
};

// The output pixels of a geometry in chunks, and the taps that each chunk meets. Built once a step.
class ConvWalk {
 public:
  // False when there is no memory.
  bool prepare(const Geometry& geometry, const DeltaPlane& plane, Scratch& scratch);

  // main [...] += (weight (*) plane) << shift, modulo 2^32, if there is a `weight`; then the epilogue, if it has an out.
  //
  // `weight` is packed: per group [out_blocks][tap][quads][16][4], zero padded; tap = kh * kernel_width + kw, which for
  // a transposed convolution is the tap of the torch weight [C, OC/groups, KH, KW], not flipped:
  // out[oy, ox] += W[:, :, kh, kw] * in[iy, ix] where oy = iy * stride - padding + kh * dilation, ox alike.
  // Rows of the plane without a change cost nothing. False when there is no memory.
  bool run(const DeltaPlane& plane, const int8_t* weight, int shift, int32_t* accumulator, const int32_t* main,
           const Epilogue& epilogue, const KernelSet& kernels, Parallel& parallel, Scratch& scratch) const;

 private:
  // Pixels of one image whose taps are the same.
  struct Chunk {
    const ConvPixel* pixels;
    int pixel_count;
    int64_t image;
    int64_t first_row;  // input rows under tap offset 0
    int64_t last_row;
    const Tap* taps;
    const int64_t* tap_rows;  // input rows from a pixel's own to the tap's
    int tap_count;
  };

  struct Phase;
  struct Job;

  bool add_phase(const Phase& phase, const DeltaPlane& plane, Scratch& scratch);
  void add_chunks(const Phase& phase, const DeltaPlane& plane, const Chunk& chunk);
  void run_block(const Job& job, int64_t block, int64_t first, int64_t last) const;
  bool drop_idle_taps(const DeltaPlane& plane, Chunk* chunks, Scratch& scratch) const;

  const Geometry* geometry_ = nullptr;
  Chunk* chunks_ = nullptr;
  int64_t chunk_count_ = 0;
  ConvPixel* pixels_ = nullptr;
  int64_t pixel_count_ = 0;
};

}  // namespace modiff
