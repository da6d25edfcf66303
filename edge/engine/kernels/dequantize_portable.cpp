#include "kernels/kernels.h"

namespace modiff {

void dequantize_portable(const DequantizeBlock& block) {
  for (int p = 0; p < block.pixels; ++p) {
    const ptrdiff_t first = static_cast<ptrdiff_t>(p) * block.channels;
    const int32_t* accumulator = block.accumulator + first;
    float* out = block.out + first;
    if (block.residual == nullptr) {
      for (int c = 0; c < block.channels; ++c) {
        const float y = block.scale[c] * static_cast<float>(accumulator[c]);
        out[c] = y + block.bias[c];
      }
      continue;
    }
    const int32_t* residual = block.residual + first;
    for (int c = 0; c < block.channels; ++c) {
      const float main = block.scale[c] * static_cast<float>(accumulator[c]);
      const float rest = block.residual_scale[c] * static_cast<float>(residual[c]);
      const float y = main + rest;
      out[c] = y + block.bias[c];
    }
  }
}

}  // namespace modiff
