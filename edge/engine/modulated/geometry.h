// Shapes of a linear operator. A linear layer is a 1x1 convolution over a row of positions.
#pragma once

#include <cstdint>

namespace modiff {

struct Geometry {
  int64_t batch = 1;
  int64_t channels = 0;  // all groups together
  int64_t height = 1;
  int64_t width = 1;
  int64_t out_channels = 0;
  int64_t out_height = 1;
  int64_t out_width = 1;
  int64_t kernel_height = 1;
  int64_t kernel_width = 1;
  int64_t stride_height = 1;
  int64_t stride_width = 1;
  int64_t padding_height = 0;
  int64_t padding_width = 0;
  int64_t dilation_height = 1;
  int64_t dilation_width = 1;
  int64_t groups = 1;
  bool transposed = false;

  int64_t group_channels() const { return channels / groups; }
  int64_t group_out_channels() const { return out_channels / groups; }
  int64_t taps() const { return kernel_height * kernel_width; }
  // Blocks of four input channels in one group, the last one padded.
  int64_t quads() const { return (group_channels() + 3) / 4; }
  int64_t out_blocks() const { return (group_out_channels() + 15) / 16; }
  int64_t packed_weight_bytes() const { return groups * out_blocks() * taps() * quads() * 64; }
  int64_t input_elements() const { return batch * channels * height * width; }
  int64_t output_elements() const { return batch * out_channels * out_height * out_width; }
  int64_t macs() const {
    const int64_t positions = transposed ? height * width : out_height * out_width;
    return batch * positions * taps() * group_channels() * out_channels;
  }
};

// Whether every size is positive, within what the kernels index with, and consistent with the output size.
bool is_sound(const Geometry& geometry);

// Lays `positions` of a linear layer out as an image of rows that threads can share.
void fold_positions(int64_t positions, Geometry* geometry);

}  // namespace modiff
