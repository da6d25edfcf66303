#include <arm_neon.h>

#include "kernels/kernels.h"

namespace modiff {
namespace {

template <bool HasResidual>
void dequantize_pixel(const DequantizeBlock& block, ptrdiff_t first, int whole) {
  for (int c = 0; c < whole; c += 4) {
    const float32x4_t accumulator = vcvtq_f32_s32(vld1q_s32(block.accumulator + first + c));
    float32x4_t y = vmulq_f32(vld1q_f32(block.scale + c), accumulator);
    if (HasResidual) {
      const float32x4_t residual = vcvtq_f32_s32(vld1q_s32(block.residual + first + c));
      y = vaddq_f32(y, vmulq_f32(vld1q_f32(block.residual_scale + c), residual));
    }
    vst1q_f32(block.out + first + c, vaddq_f32(y, vld1q_f32(block.bias + c)));
  }
}

}  // namespace

void dequantize_neon(const DequantizeBlock& block) {
  const int whole = block.channels & ~3;
  for (int p = 0; p < block.pixels; ++p) {
    const ptrdiff_t first = static_cast<ptrdiff_t>(p) * block.channels;
    if (block.residual == nullptr) {
      dequantize_pixel<false>(block, first, whole);
    } else {
      dequantize_pixel<true>(block, first, whole);
    }
    for (int c = whole; c < block.channels; ++c) {
      float y = block.scale[c] * static_cast<float>(block.accumulator[first + c]);
      if (block.residual != nullptr) {
        const float rest = block.residual_scale[c] * static_cast<float>(block.residual[first + c]);
        y = y + rest;
      }
      block.out[first + c] = y + block.bias[c];
    }
  }
}

}  // namespace modiff
