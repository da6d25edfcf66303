// The codes of one pass, laid out for the convolution: NHWC int8, each row padded with zeros left and right.
#pragma once

#include "kernels/kernel_set.h"
#include "modulated/geometry.h"
#include "modulated/scratch.h"

namespace modiff {

struct DeltaPlane {
  int8_t* codes = nullptr;         // [batch * height][left + width + right][groups][quads][4]
  uint8_t* row_changed = nullptr;  // [batch * height]: whether the row has a code that is not zero
  int64_t left = 0;                // zero pixels before the first one
  int64_t pixel_bytes = 0;
  int64_t row_bytes = 0;
};

// Allocates and zeroes the plane; false when there is no memory.
bool prepare_plane(const Geometry& geometry, Scratch& scratch, DeltaPlane* plane);

// How the layer's input lies in memory.
struct LayerInput {
  const float* values;  // [batch][channels][height][width] or [batch][height][width][channels]
  bool channels_first;
};

// Quantizes the change of the whole input against the lattice ([batch][height][width][channels]), moves the lattice
// and fills the plane. Returns the saturated count; false in `*ok` when there is no memory.
QuantizeOutcome fill_plane(const Geometry& geometry, const LayerInput& input, const QuantizePass& pass,
                           const KernelSet& kernels, int16_t* lattice, Scratch& scratch, DeltaPlane* plane, bool* ok);

}  // namespace modiff
