#include "modulated/delta_plane.h"

#include <algorithm>
#include <cstring>

namespace modiff {
namespace {

struct Border {
  int64_t before;
  int64_t after;
};

// Zero pixels that the taps reach beyond the ends of one axis.
Border border(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
              bool transposed) {
  const int64_t reach = (kernel - 1) * dilation;
  int64_t first = -padding;
  int64_t last = (out - 1) * stride - padding + reach;
  if (transposed) {
    first = -((std::max<int64_t>(0, reach - padding) + stride - 1) / stride);
    last = (out - 1 + padding) / stride;
  }
  return {std::max<int64_t>(0, -first), std::max<int64_t>(0, last - (in - 1))};
}

// Channels that lie side by side in x (or skip), in the lattice and in the plane.
struct Run {
  int64_t channel;
  int64_t count;
  int64_t byte;  // within a pixel of the plane
};

// The run that begins at `channel`; runs end where x meets skip and where a group's padding begins.
Run run_at(const Geometry& g, int64_t seam, int64_t channel) {
  const int64_t of_group = g.group_channels();
  const int64_t group = channel / of_group;
  const bool is_padded = of_group % kInputTile != 0;
  int64_t end = is_padded ? (group + 1) * of_group : g.channels;
  if (channel < seam) {
    end = std::min(end, seam);
  }
  const int64_t byte = is_padded ? group * g.quads() * kInputTile + (channel - group * of_group) : channel;
  return {channel, end - channel, byte};
}

class Filler {
 public:
  Filler(const Geometry& g, int64_t upsample, const PreparedPrologue& input, const QuantizePass& pass,
         const KernelSet& kernels, int16_t* lattice, DeltaPlane* plane)
      : g_(g), up_(upsample), input_(input), pass_(pass), kernels_(kernels), lattice_(lattice), plane_(plane) {}

  // Row `y` of an image before upsampling.
  void fill_row(int64_t image, int64_t y) const {
    int8_t* codes = plane_->codes + plane_->offset(image, y * up_, 0);
    finish_row(image, y, quantize(image, y, codes), codes);
  }

  // The same for the spill.
  void spill_row(int64_t image, int64_t y) const {
    int8_t* codes = plane_->codes + plane_->offset(image, y * up_, 0);
    if (plane_->row_saturated[image * (g_.height / up_) + y] > 0) {
      return finish_row(image, y, spill(image, y, codes), codes);
    }
    std::memset(codes, 0, static_cast<size_t>(g_.width * plane_->pixel_bytes));
    finish_row(image, y, {0, false}, codes);
  }

 private:
  void finish_row(int64_t image, int64_t y, const QuantizeOutcome& outcome, int8_t* codes) const {
    const int64_t height = g_.height / up_;
    plane_->row_saturated[image * height + y] = outcome.saturated;
    for (int64_t i = 0; i < up_; ++i) {
      plane_->row_changed[image * g_.height + y * up_ + i] = outcome.changed ? 1 : 0;
    }
    if (up_ > 1) {
      repeat(codes);
    }
    if (plane_->bounds != nullptr) {
      const ptrdiff_t pixel = plane_->offset(image, y * up_, 0) / plane_->pixel_bytes;
      const ptrdiff_t row = plane_->row_bytes / plane_->pixel_bytes;
      uint8_t* bounds = plane_->bounds + pixel;
      kernels_.pixel_bounds(codes, g_.width, plane_->pixel_bytes, bounds);
      for (int64_t i = 1; i < up_; ++i) {
        std::memcpy(bounds + i * row, bounds, static_cast<size_t>(g_.width));
      }
    }
  }

  // Few rows have any: one pixel's channels at a time.
  QuantizeOutcome spill(int64_t image, int64_t y, int8_t* codes) const {
    constexpr int64_t kChannels = 64;
    float values[kChannels];
    const int64_t width = g_.width / up_;
    ScalarQuantizer quantizer(pass_);
    for (int64_t x = 0; x < width; ++x) {
      const int64_t position = y * width + x;
      int16_t* lattice = lattice_ + (image * (g_.height / up_) * width + position) * g_.channels;
      int8_t* pixel = codes + x * up_ * plane_->pixel_bytes;
      for (int64_t channel = 0; channel < g_.channels;) {
        Run run = run_at(g_, input_.seam(), channel);
        run.count = std::min(run.count, kChannels);
        channel += run.count;
        kernels_.prologue(input_.rows(image, position, 1, run.channel, run.count), values, run.count);
        for (int64_t i = 0; i < run.count; ++i) {
          quantizer.spill(values[i], lattice + run.channel + i, pixel + run.byte + i);
        }
      }
    }
    return quantizer.spill_outcome();
  }

  QuantizeOutcome quantize(int64_t image, int64_t y, int8_t* codes) const {
    const int64_t width = g_.width / up_;
    const int64_t position = y * width;
    int16_t* lattice = lattice_ + (image * (g_.height / up_) * width + position) * g_.channels;
    QuantizeOutcome outcome = {0, false};
    for (int64_t channel = 0; channel < g_.channels;) {
      const Run run = run_at(g_, input_.seam(), channel);
      channel += run.count;
      PrologueRows rows = input_.rows(image, position, width, run.channel, run.count);
      const bool contiguous = input_.is_elementwise() && up_ == 1 && run.count == g_.channels &&
                              rows.x_stride == g_.channels && plane_->pixel_bytes == g_.channels;
      if (contiguous) {
        rows.channels *= rows.pixels;
        rows.pixels = 1;
      }
      const QuantizeRows places = {lattice + run.channel, g_.channels, codes + run.byte, up_ * plane_->pixel_bytes};
      const QuantizeOutcome part = kernels_.quantize(rows, places, pass_);
      outcome.saturated += part.saturated;
      outcome.changed = outcome.changed || part.changed;
    }
    return outcome;
  }

  // Every up-th pixel of the row is there: copies it to those between, and the row to the rows below.
  void repeat(int8_t* codes) const {
    const size_t pixel = static_cast<size_t>(plane_->pixel_bytes);
    for (int64_t x = 0; x < g_.width; x += up_) {
      for (int64_t i = 1; i < up_; ++i) {
        std::memcpy(codes + (x + i) * plane_->pixel_bytes, codes + x * plane_->pixel_bytes, pixel);
      }
    }
    for (int64_t i = 1; i < up_; ++i) {
      std::memcpy(codes + i * plane_->row_bytes, codes, static_cast<size_t>(g_.width) * pixel);
    }
  }

  const Geometry& g_;
  int64_t up_;
  const PreparedPrologue& input_;
  const QuantizePass& pass_;
  const KernelSet& kernels_;
  int16_t* lattice_;
  DeltaPlane* plane_;
};

// Of the whole plane, from its rows.
QuantizeOutcome sum_rows(const Geometry& g, int64_t upsample, const DeltaPlane& plane) {
  QuantizeOutcome outcome = {0, false};
  for (int64_t row = 0; row < g.batch * (g.height / upsample); ++row) {
    outcome.saturated += plane.row_saturated[row];
    outcome.changed = outcome.changed || plane.row_changed[row * upsample] != 0;
  }
  outcome.saturated *= static_cast<uint64_t>(upsample * upsample);
  return outcome;
}

}  // namespace

bool prepare_plane(const Geometry& g, const KernelSet& kernels, Scratch& scratch, DeltaPlane* plane) {
  const Border across = border(g.width, g.out_width, g.kernel_width, g.stride_width, g.padding_width,
                               g.dilation_width, g.transposed);
  const Border down = border(g.height, g.out_height, g.kernel_height, g.stride_height, g.padding_height,
                             g.dilation_height, g.transposed);
  plane->left = across.before;
  plane->top = down.before;
  plane->rows = down.before + g.height + down.after;
  plane->pixel_bytes = g.groups * g.quads() * kInputTile;
  plane->row_bytes = (across.before + g.width + across.after) * plane->pixel_bytes;
  const size_t bytes = static_cast<size_t>(g.batch * plane->rows * plane->row_bytes);
  plane->codes = scratch.allocate<int8_t>(bytes);
  plane->row_changed = scratch.allocate<uint8_t>(static_cast<size_t>(g.batch * g.height));
  plane->row_saturated = scratch.allocate<uint64_t>(static_cast<size_t>(g.batch * g.height));
  if (plane->codes == nullptr || plane->row_changed == nullptr || plane->row_saturated == nullptr) {
    return false;
  }
  if (kernels.pixel_bounds != nullptr && g.quads() >= kBoundedQuads) {
    const size_t pixels = bytes / static_cast<size_t>(plane->pixel_bytes);
    plane->bounds = scratch.allocate<uint8_t>(pixels);
    if (plane->bounds == nullptr) {
      return false;
    }
    std::memset(plane->bounds, 0, pixels);
  }
  const bool has_border = across.before + across.after + down.before + down.after > 0;
  if (has_border || g.group_channels() % kInputTile != 0) {
    std::memset(plane->codes, 0, bytes);
  }
  return true;
}

QuantizeOutcome fill_plane(const Geometry& g, int64_t upsample, const PreparedPrologue& input,
                           const QuantizePass& pass, const KernelSet& kernels, Parallel& parallel, int16_t* lattice,
                           DeltaPlane* plane, Part part) {
  const Filler filler(g, upsample, input, pass, kernels, lattice, plane);
  const int64_t height = g.height / upsample;
  for_each(parallel, g.batch * height, [&](int64_t row) {
    if (part == Part::kCodes) {
      filler.fill_row(row / height, row % height);
    } else {
      filler.spill_row(row / height, row % height);
    }
  });
  return sum_rows(g, upsample, *plane);
}

}  // namespace modiff
