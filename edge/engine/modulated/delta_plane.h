// The codes of one pass, laid out for the convolution: NHWC int8 between borders of zeros.
#pragma once

#include "kernels/kernel_set.h"
#include "modulated/geometry.h"
#include "modulated/parallel.h"
#include "modulated/prologue.h"
#include "modulated/scratch.h"

namespace modiff {

struct DeltaPlane {
  int8_t* codes = nullptr;         // [batch][top + height + bottom][left + width + right][groups][quads][4]
  uint8_t* bounds = nullptr;       // of each pixel, borders too; where the kernels gain by them
  uint8_t* row_changed = nullptr;  // [batch * height]: whether the row has a code that is not zero
  uint64_t* row_saturated = nullptr;  // [batch * height / upsample]
  int64_t left = 0;                // zero pixels before the first one of a row
  int64_t top = 0;                 // zero rows before the first one of an image
  int64_t rows = 0;                // of an image, with borders
  int64_t pixel_bytes = 0;
  int64_t row_bytes = 0;

  // Bytes from the start to pixel (y, x) of an image, which may lie in the border.
  ptrdiff_t offset(int64_t image, int64_t y, int64_t x) const {
    return ((image * rows + top + y) * row_bytes) + (left + x) * pixel_bytes;
  }
};

// Allocates and zeroes the plane; false when there is no memory.
bool prepare_plane(const Geometry& geometry, const KernelSet& kernels, Scratch& scratch, DeltaPlane* plane);

// What the plane gets: codes, or after them and with the same arguments, where they were clamped, their spill.
enum class Part { kCodes, kSpill };

// Quantizes the change of the whole input against the lattice ([batch][height / upsample][width / upsample][channels]),
// moves the lattice and fills the plane; a pixel of the input fills upsample x upsample of the plane's.
QuantizeOutcome fill_plane(const Geometry& geometry, int64_t upsample, const PreparedPrologue& input,
                           const QuantizePass& pass, const KernelSet& kernels, Parallel& parallel, int16_t* lattice,
                           DeltaPlane* plane, Part part);

}  // namespace modiff
