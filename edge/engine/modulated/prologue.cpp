#include "modulated/prologue.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace modiff {
namespace {

// Channels that one task sums up, a multiple of every kernel's block.
constexpr int64_t kSumChannels = 32;
// Positions whose moments one task computes.
constexpr int64_t kMomentRows = 32;

int64_t blocks(int64_t count, int64_t size) { return (count + size - 1) / size; }

// The channels of one tensor of the prologue, in blocks.
ChannelSums block_of(const float* tensor, int64_t positions, int64_t channels, int64_t image, int64_t block,
                     const float* center, float* sums) {
  const int64_t first = block * kSumChannels;
  ChannelSums job = {};
  job.x = tensor + image * positions * channels + first;
  job.x_stride = channels;
  job.pixels = positions;
  job.channels = std::min(kSumChannels, channels - first);
  job.center = center == nullptr ? nullptr : center + first;
  job.sums = sums + first;
  return job;
}

double sum_of(const float* values, int64_t count) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    sum += static_cast<double>(values[i]);
  }
  return sum;
}

}  // namespace

bool is_sound(const Prologue& p) {
  const bool sizes = p.images > 0 && p.positions > 0 && p.x_channels > 0 && p.skip_channels >= 0 &&
                     (p.skip_channels > 0) == (p.skip != nullptr);
  const bool norm = p.norm == Norm::kNone || (p.eps >= 0.0F && std::isfinite(p.eps));
  return sizes && norm && (p.norm != Norm::kGroup || (p.groups > 0 && p.channels() % p.groups == 0));
}

bool PreparedPrologue::prepare(const Prologue& prologue, const KernelSet& kernels, Parallel& parallel,
                               Scratch& scratch) {
  source_ = prologue;
  factor_ = nullptr;
  offset_ = nullptr;
  pixel_affine_ = nullptr;
  if (source_.norm == Norm::kNone) {
    return true;
  }
  const size_t vectors = static_cast<size_t>(source_.images * source_.channels());
  factor_ = scratch.allocate<float>(vectors);
  offset_ = scratch.allocate<float>(vectors);
  if (factor_ == nullptr || offset_ == nullptr) {
    return false;
  }
  return source_.norm == Norm::kGroup ? prepare_groups(kernels, parallel, scratch)
                                      : join(prologue, scratch) && prepare_rows(kernels, parallel, scratch);
}

// Norms over a position's channels read them in one piece.
bool PreparedPrologue::join(const Prologue& prologue, Scratch& scratch) {
  if (prologue.skip == nullptr) {
    return true;
  }
  const int64_t channels = prologue.channels();
  const int64_t positions = prologue.images * prologue.positions;
  float* joined = scratch.allocate<float>(static_cast<size_t>(positions * channels));
  if (joined == nullptr) {
    return false;
  }
  for (int64_t i = 0; i < positions; ++i) {
    std::memcpy(joined + i * channels, prologue.x + i * prologue.x_channels,
                static_cast<size_t>(prologue.x_channels) * sizeof(float));
    std::memcpy(joined + i * channels + prologue.x_channels, prologue.skip + i * prologue.skip_channels,
                static_cast<size_t>(prologue.skip_channels) * sizeof(float));
  }
  source_.x = joined;
  source_.x_channels = channels;
  source_.skip = nullptr;
  source_.skip_channels = 0;
  return true;
}

void PreparedPrologue::sum_channels(const KernelSet& kernels, Parallel& parallel, const float* center,
                                    float* sums) const {
  const Prologue& s = source_;
  const int64_t x_blocks = blocks(s.x_channels, kSumChannels);
  const int64_t each = x_blocks + blocks(s.skip_channels, kSumChannels);
  for_each(parallel, s.images * each, [&](int64_t task) {
    const int64_t image = task / each;
    const int64_t block = task % each;
    const int64_t place = image * s.channels();
    const float* means = center == nullptr ? nullptr : center + place;
    if (block < x_blocks) {
      kernels.channel_sums(block_of(s.x, s.positions, s.x_channels, image, block, means, sums + place));
      return;
    }
    const int64_t seam_means = s.x_channels;
    kernels.channel_sums(block_of(s.skip, s.positions, s.skip_channels, image, block - x_blocks,
                                  means == nullptr ? nullptr : means + seam_means, sums + place + seam_means));
  });
}

// Two sweeps: the mean first, then the squares of what is left of it.
bool PreparedPrologue::prepare_groups(const KernelSet& kernels, Parallel& parallel, Scratch& scratch) {
  const Prologue& s = source_;
  const int64_t channels = s.channels();
  const int64_t of_group = channels / s.groups;
  const double count = static_cast<double>(of_group) * static_cast<double>(s.positions);
  float* sums = scratch.allocate<float>(static_cast<size_t>(s.images * channels));
  float* means = scratch.allocate<float>(static_cast<size_t>(s.images * channels));
  if (sums == nullptr || means == nullptr) {
    return false;
  }
  sum_channels(kernels, parallel, nullptr, sums);
  for (int64_t first = 0; first < s.images * channels; first += of_group) {
    std::fill(means + first, means + first + of_group, static_cast<float>(sum_of(sums + first, of_group) / count));
  }
  sum_channels(kernels, parallel, means, sums);
  for (int64_t first = 0; first < s.images * channels; first += of_group) {
    const double variance = sum_of(sums + first, of_group) / count;
    const float factor = static_cast<float>(1.0 / std::sqrt(variance + static_cast<double>(s.eps)));
    const int64_t image = first / channels;
    const float* weight = s.weight.of(image, channels);
    const float* bias = s.bias.of(image, channels);
    for (int64_t i = first; i < first + of_group; ++i) {
      const int64_t channel = i - image * channels;
      factor_[i] = weight == nullptr ? factor : weight[channel] * factor;
      const float shifted = means[i] * factor_[i];
      offset_[i] = (bias == nullptr ? 0.0F : bias[channel]) - shifted;
    }
  }
  return true;
}

bool PreparedPrologue::prepare_rows(const KernelSet& kernels, Parallel& parallel, Scratch& scratch) {
  const Prologue& s = source_;
  const int64_t channels = s.channels();
  const int64_t positions = s.images * s.positions;
  pixel_affine_ = scratch.allocate<float>(static_cast<size_t>(positions * 2));
  if (pixel_affine_ == nullptr) {
    return false;
  }
  for_each(parallel, blocks(positions, kMomentRows), [&](int64_t task) {
    const int64_t first = task * kMomentRows;
    kernels.row_moments(s.x + first * channels, std::min(kMomentRows, positions - first), channels, s.eps,
                        s.norm == Norm::kLayer, pixel_affine_ + 2 * first);
  });
  for (int64_t image = 0; image < s.images; ++image) {
    const float* weight = s.weight.of(image, channels);
    const float* bias = s.bias.of(image, channels);
    for (int64_t c = 0; c < channels; ++c) {
      factor_[image * channels + c] = weight == nullptr ? 1.0F : weight[c];
      offset_[image * channels + c] = bias == nullptr ? 0.0F : bias[c];
    }
  }
  return true;
}

PrologueRows PreparedPrologue::rows(int64_t image, int64_t position, int64_t pixels, int64_t first,
                                    int64_t count) const {
  const Prologue& s = source_;
  const int64_t place = image * s.positions + position;
  const bool in_x = first < s.x_channels;
  PrologueRows rows = {};
  rows.x = in_x ? s.x + place * s.x_channels + first : s.skip + place * s.skip_channels + (first - s.x_channels);
  rows.x_stride = in_x ? s.x_channels : s.skip_channels;
  rows.pixels = pixels;
  rows.channels = count;
  rows.factor = factor_ == nullptr ? nullptr : factor_ + image * s.channels() + first;
  rows.offset = factor_ == nullptr ? nullptr : offset_ + image * s.channels() + first;
  rows.pixel_affine = pixel_affine_ == nullptr ? nullptr : pixel_affine_ + 2 * place;
  rows.activation = s.activation;
  return rows;
}

}  // namespace modiff
