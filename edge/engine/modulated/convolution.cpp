#include "modulated/convolution.h"

#include <algorithm>
#include <cstring>

namespace modiff {
namespace {

// Pixels of a chunk: its accumulators and outputs, 16 channels wide, stay in the first-level cache. Whole tiles of every
// kernel.
constexpr int64_t kChunkPixels = 96;
// Tasks per thread, so that threads of unequal speed end together.
constexpr int64_t kTasksPerThread = 4;

// Output positions of one axis that meet the same kernel positions: all of them for a convolution (phase 0 of 1), every
// stride-th for a transposed one.
struct Axis {
  int64_t first;       // output position
  int64_t step;        // output positions from one pixel to the next
  int64_t count;       // of pixels
  int64_t input;       // input position of the first pixel under tap offset 0
  int64_t input_step;  // input positions from one pixel to the next
};

int64_t phases(int64_t stride, bool transposed) { return transposed ? stride : 1; }

Axis axis_of(int64_t phase, int64_t out, int64_t stride, int64_t padding, bool transposed) {
  if (!transposed) {
    return {0, 1, out, -padding, stride};
  }
  return {phase, stride, phase < out ? (out - phase + stride - 1) / stride : 0, 0, 1};
}

// Input positions from a pixel's own to kernel position `k`; false where they never meet.
bool tap_offset(int64_t phase, int64_t k, int64_t stride, int64_t padding, int64_t dilation, bool transposed,
                int64_t* offset) {
  if (!transposed) {
    *offset = k * dilation;
    return true;
  }
  const int64_t scaled = phase + padding - k * dilation;
  *offset = scaled / stride;
  return scaled % stride == 0;
}

}  // namespace

struct ConvWalk::Phase {
  Axis down;
  Axis across;
  int64_t row;
  int64_t column;
};

struct ConvWalk::Job {
  const DeltaPlane& plane;
  const Chunk* chunks;
  const int8_t* weight;
  int shift;
  int32_t* accumulator;
  const int32_t* main;
  const Epilogue& epilogue;
  const KernelSet& kernels;
};

bool ConvWalk::prepare(const Geometry& g, const DeltaPlane& plane, Scratch& scratch) {
  geometry_ = &g;
  const int64_t down = phases(g.stride_height, g.transposed);
  const int64_t across = phases(g.stride_width, g.transposed);
  const int64_t pixels = g.batch * g.out_height * g.out_width;
  pixels_ = scratch.allocate<ConvPixel>(static_cast<size_t>(pixels));
  chunks_ = scratch.allocate<Chunk>(static_cast<size_t>(pixels / kChunkPixels + down * across * g.batch));
  pixel_count_ = 0;
  chunk_count_ = 0;
  if (pixels_ == nullptr || chunks_ == nullptr) {
    return false;
  }
  for (int64_t row = 0; row < down; ++row) {
    for (int64_t column = 0; column < across; ++column) {
      const Phase phase = {axis_of(row, g.out_height, g.stride_height, g.padding_height, g.transposed),
                           axis_of(column, g.out_width, g.stride_width, g.padding_width, g.transposed), row, column};
      if (phase.down.count > 0 && phase.across.count > 0 && !add_phase(phase, plane, scratch)) {
        return false;
      }
    }
  }
  return true;
}

bool ConvWalk::add_phase(const Phase& phase, const DeltaPlane& plane, Scratch& scratch) {
  const Geometry& g = *geometry_;
  Tap* taps = scratch.allocate<Tap>(static_cast<size_t>(g.taps()));
  int64_t* rows = scratch.allocate<int64_t>(static_cast<size_t>(g.taps()));
  if (taps == nullptr || rows == nullptr) {
    return false;
  }
  const int64_t tap_bytes = g.quads() * kOutputTile * kInputTile;
  Chunk chunk = {};
  for (int64_t kh = 0; kh < g.kernel_height; ++kh) {
    int64_t dy = 0;
    if (!tap_offset(phase.row, kh, g.stride_height, g.padding_height, g.dilation_height, g.transposed, &dy)) {
      continue;
    }
    for (int64_t kw = 0; kw < g.kernel_width; ++kw) {
      int64_t dx = 0;
      if (tap_offset(phase.column, kw, g.stride_width, g.padding_width, g.dilation_width, g.transposed, &dx)) {
        taps[chunk.tap_count] = {dy * plane.row_bytes + dx * plane.pixel_bytes,
                                 (kh * g.kernel_width + kw) * tap_bytes};
        rows[chunk.tap_count] = dy;
        ++chunk.tap_count;
      }
    }
  }
  chunk.taps = taps;
  chunk.tap_rows = rows;
  for (chunk.image = 0; chunk.image < g.batch; ++chunk.image) {
    add_chunks(phase, plane, chunk);
  }
  return true;
}

// The pixels of one image, row after row; a chunk may begin and end within a row.
void ConvWalk::add_chunks(const Phase& phase, const DeltaPlane& plane, const Chunk& like) {
  const Geometry& g = *geometry_;
  Chunk chunk = like;
  chunk.pixel_count = 0;
  for (int64_t j = 0; j < phase.down.count; ++j) {
    const int64_t iy = phase.down.input + j * phase.down.input_step;
    const int64_t oy = phase.down.first + j * phase.down.step;
    ConvPixel pixel = {plane.offset(like.image, iy, phase.across.input),
                       ((like.image * g.out_height + oy) * g.out_width + phase.across.first) * g.out_channels};
    const ptrdiff_t input_step = phase.across.input_step * plane.pixel_bytes;
    const ptrdiff_t output_step = phase.across.step * g.out_channels;
    for (int64_t i = 0; i < phase.across.count; ++i) {
      if (chunk.pixel_count == 0) {
        chunk.pixels = pixels_ + pixel_count_;
        chunk.first_row = iy;
      }
      pixels_[pixel_count_++] = pixel;
      chunk.pixel_count += 1;
      chunk.last_row = iy;
      pixel.input += input_step;
      pixel.output += output_step;
      const bool ends = i + 1 == phase.across.count && j + 1 == phase.down.count;
      if (chunk.pixel_count == kChunkPixels || ends) {
        chunks_[chunk_count_++] = chunk;
        chunk.pixel_count = 0;
      }
    }
  }
}

// Gives every chunk its own list of taps, without those that meet only rows where nothing changed.
bool ConvWalk::drop_idle_taps(const DeltaPlane& plane, Chunk* chunks, Scratch& scratch) const {
  const Geometry& g = *geometry_;
  for (int64_t i = 0; i < chunk_count_; ++i) {
    Chunk& chunk = chunks[i];
    const uint8_t* changed = plane.row_changed + chunk.image * g.height;
    Tap* taps = scratch.allocate<Tap>(static_cast<size_t>(chunk.tap_count));
    if (taps == nullptr) {
      return false;
    }
    int count = 0;
    for (int t = 0; t < chunk.tap_count; ++t) {
      const int64_t first = std::max<int64_t>(0, chunk.first_row + chunk.tap_rows[t]);
      const int64_t end = std::min(g.height, chunk.last_row + chunk.tap_rows[t] + 1);
      if (first < end && std::memchr(changed + first, 1, static_cast<size_t>(end - first)) != nullptr) {
        taps[count++] = chunk.taps[t];
      }
    }
    chunk.taps = taps;
    chunk.tap_count = count;
  }
  return true;
}

void ConvWalk::run_block(const Job& job, int64_t block, int64_t first, int64_t last) const {
  const Geometry& g = *geometry_;
  const int64_t group = block / g.out_blocks();
  const int64_t within = block % g.out_blocks();
  const int64_t channel = group * g.group_out_channels() + within * kOutputTile;
  const Epilogue& e = job.epilogue;
  ConvBlock conv = {};
  conv.plane = job.plane.codes + group * g.quads() * kInputTile;
  conv.quads = static_cast<int>(g.quads());
  conv.shift = job.shift;
  conv.bounds = job.plane.bounds;
  conv.pixel_bytes = job.plane.pixel_bytes;
  conv.channels = static_cast<int>(std::min<int64_t>(kOutputTile, g.group_out_channels() - within * kOutputTile));
  EpilogueBlock out = {};
  out.channels = conv.channels;
  out.accumulator = job.main + channel;
  out.residual = e.residual == nullptr ? nullptr : e.residual + channel;
  out.scale = e.scale + channel;
  out.residual_scale = e.residual_scale + channel;
  out.bias = e.bias + channel;
  out.history = e.history == nullptr ? nullptr : e.history + channel;
  out.share = e.share;
  out.activation = e.activation;
  out.add = e.add == nullptr ? nullptr : e.add + channel;
  out.out = e.out == nullptr ? nullptr : e.out + channel;
  for (int64_t i = first; i < last; ++i) {
    const Chunk& chunk = job.chunks[i];
    if (job.weight != nullptr && chunk.tap_count > 0) {
      conv.weights = job.weight + block * g.taps() * g.quads() * kOutputTile * kInputTile;
      conv.accumulator = job.accumulator + channel;
      conv.pixels = chunk.pixels;
      conv.pixel_count = chunk.pixel_count;
      conv.taps = chunk.taps;
      conv.tap_count = chunk.tap_count;
      job.kernels.conv(conv);
    }
    if (out.out != nullptr) {
      out.pixels = chunk.pixels;
      out.pixel_count = chunk.pixel_count;
      const float* shift = e.shift.of(chunk.image, g.out_channels);
      const float* gate = e.gate.of(chunk.image, g.out_channels);
      out.shift = shift == nullptr ? nullptr : shift + channel;
      out.gate = gate == nullptr ? nullptr : gate + channel;
      job.kernels.epilogue(out);
    }
  }
}

bool ConvWalk::run(const DeltaPlane& plane, const int8_t* weight, int shift, int32_t* accumulator, const int32_t* main,
                   const Epilogue& epilogue, const KernelSet& kernels, Parallel& parallel, Scratch& scratch) const {
  const Geometry& g = *geometry_;
  const Chunk* chunks = chunks_;
  const size_t rows = static_cast<size_t>(g.batch * g.height);
  if (weight != nullptr && std::memchr(plane.row_changed, 0, rows) != nullptr) {
    Chunk* own = scratch.allocate<Chunk>(static_cast<size_t>(chunk_count_));
    if (own == nullptr) {
      return false;
    }
    std::copy(chunks_, chunks_ + chunk_count_, own);
    if (!drop_idle_taps(plane, own, scratch)) {
      return false;
    }
    chunks = own;
  }
  const Job job = {plane, chunks, weight, shift, accumulator, main, epilogue, kernels};
  const int64_t blocks = g.groups * g.out_blocks();
  const int64_t wanted = parallel.threads() > 1 ? parallel.threads() * kTasksPerThread : 1;
  const int64_t pieces = std::min(chunk_count_, std::max<int64_t>(1, wanted / blocks));
  for_each(parallel, blocks * pieces, [&](int64_t task) {
    const int64_t piece = task % pieces;
    run_block(job, task / pieces, chunk_count_ * piece / pieces, chunk_count_ * (piece + 1) / pieces);
  });
  return true;
}

}  // namespace modiff
