// The kernels that differ from one instruction set to the next, behind one table of functions.
//
// Every set computes the same integers, and the same floats to the bit; only speed differs. Kernels know rows of
// memory, nothing of layers, plans or ExecuTorch. No kernel contracts a product and a sum on its own; where KERNELS.md
// says fused, it is fused in all of them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "floats/activation_kind.h"
#include "kernels/quantize_scalar.h"

namespace modiff {

// Output channels that one tile computes side by side, and input channels in one 32-bit lane of packed weights.
constexpr int kOutputTile = 16;
constexpr int kInputTile = 4;
// With fewer input channels / kInputTile, small codes do not win back what the bounds of pixels cost: there are none.
constexpr int kBoundedQuads = 8;

// One output pixel of a convolution: where the codes under its first tap lie (bytes from the plane's start), and its
// first channel in the accumulator and in every tensor of the output's shape (elements).
struct ConvPixel {
  ptrdiff_t input;
  ptrdiff_t output;
};

// One tap: bytes from a pixel's input to the tap's, and bytes from the block's first weight to the tap's.
struct Tap {
  ptrdiff_t pixels;
  ptrdiff_t weights;
};

// Some output pixels, one block of at most kOutputTile output channels:
// accumulator[pixel.output + c] += (sum over taps and input channels of weight * code) << shift, modulo 2^32.
struct ConvBlock {
  const int8_t* plane;
  const ConvPixel* pixels;
  int pixel_count;
  const Tap* taps;
  int tap_count;
  const int8_t* weights;  // of a tap: [quads][kOutputTile][kInputTile]
  int quads;              // input channels / kInputTile, rounded up
  int shift;
  int32_t* accumulator;   // of the block's first channel
  int channels;           // 1..kOutputTile
  const uint8_t* bounds;  // of each pixel of the plane, as KernelSet::pixel_bounds wrote them; or nullptr
  ptrdiff_t pixel_bytes;  // of the plane
};

// From accumulators to outputs, for the pixels and channels of a ConvBlock. Each pointer to a tensor or vector is at the
// block's first channel; those that may be nullptr say so.
//   y = m0*O0 [+ m1*O1] + b;  y = y + share*(y - history);  y = y + shift;  y = activation(y);  y = y * gate;  y = y + add
struct EpilogueBlock {
  const ConvPixel* pixels;
  int pixel_count;
  int channels;  // 1..kOutputTile
  const int32_t* accumulator;
  const int32_t* residual;  // or nullptr: one plane
  const float* scale;
  const float* residual_scale;
  const float* bias;
  const float* history;  // or nullptr: no extrapolation
  float share;
  const float* shift;  // or nullptr
  Activation activation;
  const float* gate;  // or nullptr
  const float* add;   // or nullptr
  float* out;
};

// u = activation(factor[c] * (p * x + q) + offset[c]), fused products, for `pixels` rows of `channels` values.
struct PrologueRows {
  const float* x;
  ptrdiff_t x_stride;  // elements from one pixel to the next
  int64_t pixels;
  int64_t channels;
  const float* factor;        // [channels], or nullptr (with offset): 1 and 0
  const float* offset;        // [channels]
  const float* pixel_affine;  // [pixels][2] = p, q, or nullptr: 1 and 0; only with a factor
  Activation activation;
};

// Where the codes of those rows go, and the lattice that they move.
struct QuantizeRows {
  int16_t* lattice;
  ptrdiff_t lattice_stride;
  int8_t* codes;
  ptrdiff_t codes_stride;
};

// Sums over pixels, per channel: of x, or with `center` of (x - center[c])^2.
struct ChannelSums {
  const float* x;
  ptrdiff_t x_stride;
  int64_t pixels;
  int64_t channels;
  const float* center;  // [channels] or nullptr
  float* sums;          // [channels]
};

// Some queries of one head: out = softmax(scale * q k^T) v.
struct AttentionBlock {
  const float* q;  // [queries] rows of `depth`, `q_stride` apart; out likewise
  const float* k;  // [keys] rows of `depth`, `kv_stride` apart; v likewise
  const float* v;
  float* out;
  ptrdiff_t q_stride;
  ptrdiff_t kv_stride;
  int64_t queries;
  int64_t keys;
  int64_t depth;
  float scale;
  float* scratch;  // attention_scratch(keys, depth) floats, at a multiple of 64 bytes
};
constexpr int kAttentionKeys = 64;       // of a block; part of the order of operations
constexpr int kMostAttentionLanes = 16;  // queries side by side; no part of it
size_t attention_scratch(int64_t keys, int64_t depth);

struct KernelSet {
  const char* isa;
  void (*conv)(const ConvBlock&);
  // bounds[pixel] = the largest size of its codes. nullptr where conv does not look at bounds, which is then given none.
  void (*pixel_bounds)(const int8_t* codes, int64_t pixels, int64_t pixel_bytes, uint8_t* bounds);
  void (*epilogue)(const EpilogueBlock&);
  QuantizeOutcome (*quantize)(const PrologueRows&, const QuantizeRows&, const QuantizePass&);
  void (*prologue)(const PrologueRows&, float* out, ptrdiff_t out_stride);
  void (*channel_sums)(const ChannelSums&);
  // p and q of each pixel for PrologueRows::pixel_affine: (x - mean) / sqrt(variance + eps), or without the mean.
  void (*row_moments)(const float* x, int64_t pixels, int64_t channels, float eps, bool centered, float* pixel_affine);
  void (*attention)(const AttentionBlock&);
  void (*add)(const float* a, const float* b, size_t count, float* out);
  void (*multiply)(const float* a, const float* b, size_t count, float* out);
  // out = newest + share * (newest - older)
  void (*extrapolate)(const float* newest, const float* older, float share, size_t count, float* out);
  // out = 1 / (1 + exp(-x)); x and out may be the same.
  void (*sigmoid)(const float* x, size_t count, float* out);
  // Each row of `columns` values: exp(x - max) / sum of them; x and out may be the same.
  void (*softmax)(const float* x, size_t rows, size_t columns, float* out);
};

// The set for `isa` ("auto", "portable", "neon", "dotprod", "i8mm", "avx2", "avx512vnni"); nullptr when this CPU or
// build lacks it.
const KernelSet* find_kernels(const char* isa);

}  // namespace modiff
