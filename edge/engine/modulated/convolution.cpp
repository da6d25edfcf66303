#include "modulated/convolution.h"

#include <algorithm>

namespace modiff {
namespace {

// Output columns whose taps fall on the same kernel columns: all of them for a convolution (phase 0 of 1), every
// stride-th for a transposed one.
struct Phase {
  int64_t first;        // output column
  int64_t step;         // output columns from one pixel to the next
  int64_t pixels;       // output columns in this phase
  int64_t input_step;   // input columns from one pixel to the next
};

struct Walk {
  const Geometry& g;
  const DeltaPlane& plane;
  Tap* taps;
};

Phase phase_of(const Geometry& g, int64_t phase) {
  if (!g.transposed) {
    return {0, 1, g.out_width, g.stride_width};
  }
  const int64_t pixels = phase < g.out_width ? (g.out_width - phase + g.stride_width - 1) / g.stride_width : 0;
  return {phase, g.stride_width, pixels, 1};
}

// The input row that kernel row `kh` meets at output row `oy`; -1 when there is none.
int64_t input_row(const Geometry& g, int64_t oy, int64_t kh) {
  if (!g.transposed) {
    const int64_t iy = oy * g.stride_height - g.padding_height + kh * g.dilation_height;
    return iy >= 0 && iy < g.height ? iy : -1;
  }
  const int64_t scaled = oy + g.padding_height - kh * g.dilation_height;
  const bool meets = scaled >= 0 && scaled % g.stride_height == 0 && scaled / g.stride_height < g.height;
  return meets ? scaled / g.stride_height : -1;
}

// The input column of the phase's first pixel under kernel column `kw`, possibly in the padding; false: no column.
bool input_column(const Geometry& g, const Phase& phase, int64_t kw, int64_t* ix) {
  if (!g.transposed) {
    *ix = kw * g.dilation_width - g.padding_width;
    return true;
  }
  const int64_t scaled = phase.first + g.padding_width - kw * g.dilation_width;
  *ix = scaled / g.stride_width;
  return scaled % g.stride_width == 0;
}

int collect_taps(const Walk& walk, const Phase& phase, int64_t image, int64_t oy, int64_t group,
                 const int8_t* block_weight) {
  const Geometry& g = walk.g;
  const int64_t tap_bytes = g.quads() * kOutputTile * kInputTile;
  int count = 0;
  for (int64_t kh = 0; kh < g.kernel_height; ++kh) {
    const int64_t iy = input_row(g, oy, kh);
    if (iy < 0 || walk.plane.row_changed[image * g.height + iy] == 0) {
      continue;
    }
    const int8_t* row = walk.plane.codes + (image * g.height + iy) * walk.plane.row_bytes;
    for (int64_t kw = 0; kw < g.kernel_width; ++kw) {
      int64_t ix;
      if (!input_column(g, phase, kw, &ix)) {
        continue;
      }
      walk.taps[count].pixels =
          row + (walk.plane.left + ix) * walk.plane.pixel_bytes + group * g.quads() * kInputTile;
      walk.taps[count].weights = block_weight + (kh * g.kernel_width + kw) * tap_bytes;
      ++count;
    }
  }
  return count;
}

// Every output row of one phase and one block of output channels: the block's weights stay in the cache.
void accumulate_block(const Walk& walk, const Phase& phase, int64_t group, int64_t block, const int8_t* block_weight,
                      int shift, const KernelSet& kernels, int32_t* accumulator) {
  const Geometry& g = walk.g;
  const int64_t channel = group * g.group_out_channels() + block * kOutputTile;
  ConvRow row = {};
  row.taps = walk.taps;
  row.pixels = static_cast<int>(phase.pixels);
  row.pixel_stride = phase.input_step * walk.plane.pixel_bytes;
  row.quads = static_cast<int>(g.quads());
  row.shift = shift;
  row.out_stride = phase.step * g.out_channels;
  row.out_channels = static_cast<int>(std::min<int64_t>(kOutputTile, g.group_out_channels() - block * kOutputTile));
  for (int64_t image = 0; image < g.batch; ++image) {
    for (int64_t oy = 0; oy < g.out_height; ++oy) {
      row.tap_count = collect_taps(walk, phase, image, oy, group, block_weight);
      if (row.tap_count == 0) {
        continue;
      }
      row.out = accumulator + ((image * g.out_height + oy) * g.out_width + phase.first) * g.out_channels + channel;
      kernels.conv_row(row);
    }
  }
}

}  // namespace

bool accumulate_convolution(const Geometry& g, const DeltaPlane& plane, const int8_t* weight, int shift,
                            const KernelSet& kernels, int32_t* accumulator, Scratch& scratch) {
  Tap* taps = scratch.allocate<Tap>(static_cast<size_t>(g.taps()));
  if (taps == nullptr) {
    return false;
  }
  const Walk walk = {g, plane, taps};
  const int64_t block_bytes = g.taps() * g.quads() * kOutputTile * kInputTile;
  const int64_t phases = g.transposed ? g.stride_width : 1;
  for (int64_t group = 0; group < g.groups; ++group) {
    for (int64_t block = 0; block < g.out_blocks(); ++block) {
      const int8_t* block_weight = weight + (group * g.out_blocks() + block) * block_bytes;
      for (int64_t index = 0; index < phases; ++index) {
        const Phase phase = phase_of(g, index);
        if (phase.pixels > 0) {
          accumulate_block(walk, phase, group, block, block_weight, shift, kernels, accumulator);
        }
      }
    }
  }
  return true;
}

}  // namespace modiff
