#include "modulated/delta_plane.h"

#include <algorithm>
#include <cstring>

namespace modiff {
namespace {

// Elements quantized at once: small enough for the first-level cache.
constexpr int64_t kBlockElements = 4096;

struct Padding {
  int64_t left;
  int64_t right;
};

// Zero pixels that the taps reach beyond a row's ends.
Padding row_padding(const Geometry& g) {
  const int64_t reach = (g.kernel_width - 1) * g.dilation_width;
  int64_t first = -g.padding_width;
  int64_t last = (g.out_width - 1) * g.stride_width - g.padding_width + reach;
  if (g.transposed) {
    first = -((std::max<int64_t>(0, reach - g.padding_width) + g.stride_width - 1) / g.stride_width);
    last = (g.out_width - 1 + g.padding_width) / g.stride_width;
  }
  return {std::max<int64_t>(0, -first), std::max<int64_t>(0, last - (g.width - 1))};
}

// From [pixels][channels] to [pixels][groups][quads * 4].
void spread_groups(const Geometry& g, const int8_t* codes, int64_t pixels, int8_t* out) {
  const int64_t channels = g.group_channels();
  const int64_t padded = g.quads() * kInputTile;
  for (int64_t i = 0; i < pixels * g.groups; ++i) {
    std::memcpy(out + i * padded, codes + i * channels, static_cast<size_t>(channels));
  }
}

struct Blocks {
  float* values;   // [pixels][channels], nullptr when the input is laid out so already
  int8_t* packed;  // [pixels][channels], nullptr when a group's channels are whole quads
  int64_t pixels;  // at once
};

bool allocate_blocks(const Geometry& g, bool needs_transpose, Scratch& scratch, Blocks* blocks) {
  blocks->pixels = std::min(g.width, std::max<int64_t>(1, kBlockElements / g.channels));
  const size_t elements = static_cast<size_t>(blocks->pixels * g.channels);
  const bool needs_padding = g.group_channels() % kInputTile != 0;
  blocks->values = needs_transpose ? scratch.allocate<float>(elements) : nullptr;
  blocks->packed = needs_padding ? scratch.allocate<int8_t>(elements) : nullptr;
  return (!needs_transpose || blocks->values != nullptr) && (!needs_padding || blocks->packed != nullptr);
}

}  // namespace

bool prepare_plane(const Geometry& g, Scratch& scratch, DeltaPlane* plane) {
  const Padding padding = row_padding(g);
  const int64_t rows = g.batch * g.height;
  plane->left = padding.left;
  plane->pixel_bytes = g.groups * g.quads() * kInputTile;
  plane->row_bytes = (padding.left + g.width + padding.right) * plane->pixel_bytes;
  const size_t bytes = static_cast<size_t>(rows * plane->row_bytes);
  plane->codes = scratch.allocate<int8_t>(bytes);
  plane->row_changed = scratch.allocate<uint8_t>(static_cast<size_t>(rows));
  if (plane->codes == nullptr || plane->row_changed == nullptr) {
    return false;
  }
  const bool has_gaps = padding.left + padding.right > 0 || g.group_channels() % kInputTile != 0;
  if (has_gaps) {
    std::memset(plane->codes, 0, bytes);
  }
  return true;
}

QuantizeOutcome fill_plane(const Geometry& g, const LayerInput& input, const QuantizePass& pass,
                           const KernelSet& kernels, int16_t* lattice, Scratch& scratch, DeltaPlane* plane, bool* ok) {
  QuantizeOutcome outcome = {0, false};
  const int64_t positions = g.height * g.width;
  const bool needs_transpose = input.channels_first && g.channels > 1 && positions > 1;
  Blocks blocks = {};
  *ok = allocate_blocks(g, needs_transpose, scratch, &blocks);
  if (!*ok) {
    return outcome;
  }
  for (int64_t row = 0; row < g.batch * g.height; ++row) {
    const int64_t image = row / g.height;
    bool changed = false;
    for (int64_t first = 0; first < g.width; first += blocks.pixels) {
      const int64_t pixels = std::min(blocks.pixels, g.width - first);
      const int64_t position = row * g.width + first;
      const float* values = input.values + position * g.channels;
      if (needs_transpose) {
        const int64_t within = (row % g.height) * g.width + first;
        const float* corner = input.values + image * g.channels * positions + within;
        kernels.transpose(corner, positions, static_cast<int>(g.channels), static_cast<int>(pixels), blocks.values,
                          g.channels);
        values = blocks.values;
      }
      int8_t* place = plane->codes + row * plane->row_bytes + (plane->left + first) * plane->pixel_bytes;
      int8_t* codes = blocks.packed != nullptr ? blocks.packed : place;
      const QuantizeOutcome part = kernels.quantize(pass, values, lattice + position * g.channels, codes,
                                                    static_cast<size_t>(pixels * g.channels));
      if (blocks.packed != nullptr) {
        spread_groups(g, codes, pixels, place);
      }
      outcome.saturated += part.saturated;
      changed = changed || part.changed;
    }
    plane->row_changed[row] = changed ? 1 : 0;
    outcome.changed = outcome.changed || changed;
  }
  return outcome;
}

}  // namespace modiff
