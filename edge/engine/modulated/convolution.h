// The integer convolution: taps walk over the delta plane, no im2col buffer.
#pragma once

#include "kernels/kernel_set.h"
#include "modulated/delta_plane.h"
#include "modulated/geometry.h"
#include "modulated/scratch.h"

namespace modiff {

// accumulator [batch][out_height][out_width][out_channels] += (weight (*) plane) << shift, modulo 2^32.
//
// `weight` is packed: per group [out_blocks][tap][quads][16][4], zero padded; tap = kh * kernel_width + kw, which for
// a transposed convolution is the tap of the torch weight [C, OC/groups, KH, KW], not flipped:
// out[oy, ox] += W[:, :, kh, kw] * in[iy, ix] where oy = iy * stride - padding + kh * dilation, ox alike.
// Rows of the plane without a change cost nothing. False when there is no memory.
bool accumulate_convolution(const Geometry& geometry, const DeltaPlane& plane, const int8_t* weight, int shift,
                            const KernelSet& kernels, int32_t* accumulator, Scratch& scratch);

}  // namespace modiff
