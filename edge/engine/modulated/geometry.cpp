#include "modulated/geometry.h"

#include <algorithm>

namespace modiff {
namespace {

// Products of any three extents below stay within int64.
constexpr int64_t kLargestExtent = 1 << 20;
constexpr int64_t kMostElements = int64_t{1} << 31;

bool in_range(int64_t value, int64_t lowest, int64_t highest) { return value >= lowest && value <= highest; }

// One axis: whether `out` is a size that PyTorch would compute.
bool is_output_extent(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
                      bool transposed) {
  const int64_t span = dilation * (kernel - 1) + 1;
  if (!transposed) {
    const int64_t room = in + 2 * padding - span;
    return room >= 0 && out == room / stride + 1;
  }
  const int64_t least = (in - 1) * stride - 2 * padding + span;
  return out >= least && out < least + std::max(stride, dilation);
}

}  // namespace

bool is_sound(const Geometry& g) {
  const int64_t positive[] = {g.batch,         g.channels,     g.height,        g.width,        g.out_channels,
                              g.out_height,    g.out_width,    g.kernel_height, g.kernel_width, g.stride_height,
                              g.stride_width,  g.dilation_height, g.dilation_width, g.groups};
  for (const int64_t extent : positive) {
    if (!in_range(extent, 1, kLargestExtent)) {
      return false;
    }
  }
  if (!in_range(g.padding_height, 0, kLargestExtent) || !in_range(g.padding_width, 0, kLargestExtent)) {
    return false;
  }
  if (!in_range(g.kernel_height, 1, 1024) || !in_range(g.kernel_width, 1, 1024)) {
    return false;
  }
  const bool divides = g.channels % g.groups == 0 && g.out_channels % g.groups == 0;
  const bool fits = g.height * g.width <= kMostElements && g.out_height * g.out_width <= kMostElements &&
                    g.batch * g.channels <= kMostElements && g.batch * g.out_channels <= kMostElements;
  if (!divides || !fits || g.input_elements() > kMostElements || g.output_elements() > kMostElements) {
    return false;
  }
  return is_output_extent(g.height, g.out_height, g.kernel_height, g.stride_height, g.padding_height,
                          g.dilation_height, g.transposed) &&
         is_output_extent(g.width, g.out_width, g.kernel_width, g.stride_width, g.padding_width, g.dilation_width,
                          g.transposed);
}

void fold_positions(int64_t positions, Geometry* g) {
  constexpr int64_t kLongestRow = 64;
  constexpr int64_t kShortestRow = 8;
  int64_t width = positions;
  for (int64_t divisor = kLongestRow; divisor >= kShortestRow; --divisor) {
    if (positions > kLongestRow && positions % divisor == 0) {
      width = divisor;
      break;
    }
  }
  g->width = width;
  g->height = positions / width;
  g->out_width = g->width;
  g->out_height = g->height;
}

}  // namespace modiff
