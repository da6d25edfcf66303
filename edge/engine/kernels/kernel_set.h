// The kernels that differ from one instruction set to the next, behind one table of functions.
//
// Every set computes the same integers, and the same floats to the bit; only speed differs. Kernels know rows of
// memory, nothing of layers, plans or ExecuTorch. No kernel is built with fused multiply-add.
#pragma once

#include <cstddef>
#include <cstdint>

namespace modiff {

// Output channels that one tile computes side by side, and input channels in one 32-bit lane of packed weights.
constexpr int kOutputTile = 16;
constexpr int kInputTile = 4;

// One pass over `count` inputs: q = clamp(rne((x * inverse_step - A) * 2^-exponent)), A += q << exponent.
struct QuantizePass {
  float inverse_step;
  int exponent;  // 0..15
  int limit;     // |A| <= limit <= 32767 holds before and after
};

struct QuantizeOutcome {
  uint64_t saturated;  // elements that were clamped, or NaN
  bool changed;        // whether any code is not zero
};

// One tap of a convolution over one output row: where its first pixel and its weights lie.
struct Tap {
  const int8_t* pixels;   // kInputTile * quads bytes a pixel
  const int8_t* weights;  // [quads][kOutputTile][kInputTile]
};

// A row of output pixels, one block of at most kOutputTile output channels:
// out[p * out_stride + c] += (sum over taps and input channels of weight * pixel) << shift, modulo 2^32.
struct ConvRow {
  const Tap* taps;
  int tap_count;
  int pixels;
  ptrdiff_t pixel_stride;  // bytes from one output pixel's input to the next one's
  int quads;               // input channels / kInputTile
  int shift;
  int32_t* out;
  ptrdiff_t out_stride;  // elements
  int out_channels;      // 1..kOutputTile
};

// y = fl(fl(m0 * O0) [+ fl(m1 * O1)] + b) for `pixels` rows of `channels` values.
struct DequantizeBlock {
  const int32_t* accumulator;
  const int32_t* residual;  // nullptr without a residual plane
  const float* scale;       // [channels]
  const float* residual_scale;
  const float* bias;
  float* out;
  int pixels;
  int channels;
};

struct KernelSet {
  const char* isa;
  QuantizeOutcome (*quantize)(const QuantizePass&, const float* x, int16_t* lattice, int8_t* codes, size_t count);
  void (*conv_row)(const ConvRow&);
  void (*dequantize)(const DequantizeBlock&);
  // out[c * out_stride + r] = in[r * in_stride + c]
  void (*transpose)(const float* in, ptrdiff_t in_stride, int rows, int columns, float* out, ptrdiff_t out_stride);
};

// The set for `isa` ("auto", "portable", "neon", "dotprod", "avx2"); nullptr when this CPU or build lacks it.
const KernelSet* find_kernels(const char* isa);

}  // namespace modiff
