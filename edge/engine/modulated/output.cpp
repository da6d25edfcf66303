#include "modulated/output.h"

#include <algorithm>

namespace modiff {
namespace {

// Elements at once: they stay in the first-level cache between dequantization and transpose.
constexpr int64_t kBlockElements = 4096;

DequantizeBlock block_at(const OutputSource& source, int64_t position, int64_t pixels, float* out) {
  const int64_t channels = source.geometry->out_channels;
  DequantizeBlock block = {};
  block.accumulator = source.accumulator + position * channels;
  block.residual = source.residual != nullptr ? source.residual + position * channels : nullptr;
  block.scale = source.scale;
  block.residual_scale = source.residual_scale;
  block.bias = source.bias;
  block.out = out;
  block.pixels = static_cast<int>(pixels);
  block.channels = static_cast<int>(channels);
  return block;
}

void extrapolate(const float* history, float share, size_t count, float* y) {
  for (size_t i = 0; i < count; ++i) {
    const float change = y[i] - history[i];
    const float ahead = share * change;
    y[i] = y[i] + ahead;
  }
}

}  // namespace

void read_history(const OutputSource& source, const KernelSet& kernels, float* history) {
  const Geometry& g = *source.geometry;
  const int64_t row = g.out_width;
  for (int64_t position = 0; position < g.batch * g.out_height * row; position += row) {
    kernels.dequantize(block_at(source, position, row, history + position * g.out_channels));
  }
}

bool write_output(const OutputSource& source, const KernelSet& kernels, Scratch& scratch, bool channels_first,
                  float* output) {
  const Geometry& g = *source.geometry;
  const int64_t positions = g.out_height * g.out_width;
  const bool needs_transpose = channels_first && g.out_channels > 1 && positions > 1;
  const int64_t most = std::min(positions, std::max<int64_t>(4, kBlockElements / g.out_channels));
  float* block = needs_transpose ? scratch.allocate<float>(static_cast<size_t>(most * g.out_channels)) : nullptr;
  if (needs_transpose && block == nullptr) {
    return false;
  }
  for (int64_t image = 0; image < g.batch; ++image) {
    for (int64_t first = 0; first < positions; first += most) {
      const int64_t pixels = std::min(most, positions - first);
      const int64_t position = image * positions + first;
      float* y = needs_transpose ? block : output + position * g.out_channels;
      kernels.dequantize(block_at(source, position, pixels, y));
      if (source.extrapolation.history != nullptr) {
        extrapolate(source.extrapolation.history + position * g.out_channels, source.extrapolation.share,
                    static_cast<size_t>(pixels * g.out_channels), y);
      }
      if (needs_transpose) {
        kernels.transpose(y, g.out_channels, static_cast<int>(pixels), static_cast<int>(g.out_channels),
                          output + image * g.out_channels * positions + first, positions);
      }
    }
  }
  return true;
}

}  // namespace modiff
