// Sums for the norms, in an order that depends on the shape alone.
#pragma once

#include <cmath>

#include "floats/functions.h"
#include "kernels/kernel_set.h"

namespace modiff {

// Pixels summed up before they join the total: keeps the error of a large image small.
constexpr int64_t kSumPixels = 64;

// Blocks vectors of eight channels from channel `first` on; the last of them may be partial in `count` channels.
template <typename S, int Blocks, bool Centered>
void channel_sums_block(const ChannelSums& job, int64_t first, int count) {
  using F = typename S::F;
  const bool partial = Blocks == 1 && count < 8;
  F totals[Blocks];
  F center[Blocks];
  for (int b = 0; b < Blocks; ++b) {
    totals[b] = S::splat(0.0F);
    center[b] = totals[b];
    if (Centered) {
      center[b] = partial ? load_some<S>(job.center + first, count) : S::load(job.center + first + 8 * b);
    }
  }
  for (int64_t start = 0; start < job.pixels; start += kSumPixels) {
    const int64_t end = start + kSumPixels < job.pixels ? start + kSumPixels : job.pixels;
    F sums[Blocks];
    for (F& sum : sums) {
      sum = S::splat(0.0F);
    }
    const float* x = job.x + start * job.x_stride + first;
    for (int64_t p = start; p < end; ++p, x += job.x_stride) {
      for (int b = 0; b < Blocks; ++b) {
        const F value = partial ? load_some<S>(x, count) : S::load(x + 8 * b);
        const F change = Centered ? S::sub(value, center[b]) : value;
        sums[b] = Centered ? S::fma(change, change, sums[b]) : S::add(sums[b], change);
      }
    }
    for (int b = 0; b < Blocks; ++b) {
      totals[b] = S::add(totals[b], sums[b]);
    }
  }
  for (int b = 0; b < Blocks; ++b) {
    store_some<S>(job.sums + first + 8 * b, totals[b], partial ? count : 8);
  }
}

template <typename S, bool Centered>
void channel_sums_all(const ChannelSums& job) {
  int64_t c = 0;
  for (; c + 32 <= job.channels; c += 32) {
    channel_sums_block<S, 4, Centered>(job, c, 8);
  }
  for (; c < job.channels; c += 8) {
    channel_sums_block<S, 1, Centered>(job, c, job.channels - c < 8 ? static_cast<int>(job.channels - c) : 8);
  }
}

template <typename S>
void channel_sums(const ChannelSums& job) {
  job.center != nullptr ? channel_sums_all<S, true>(job) : channel_sums_all<S, false>(job);
}

// Channel i goes to lane i mod 8; the lanes are summed as a tree.
template <typename S>
float lane_sum(const typename S::F& a) {
  float v[8];
  S::store(v, a);
  const float low = (v[0] + v[1]) + (v[2] + v[3]);
  const float high = (v[4] + v[5]) + (v[6] + v[7]);
  return low + high;
}

template <typename S>
float row_sum(const float* x, int64_t channels) {
  typename S::F sum = S::splat(0.0F);
  int64_t c = 0;
  for (; c + 8 <= channels; c += 8) {
    sum = S::add(sum, S::load(x + c));
  }
  if (c < channels) {
    sum = S::add(sum, load_some<S>(x + c, static_cast<int>(channels - c)));
  }
  return lane_sum<S>(sum);
}

template <typename S>
float row_square_sum(const float* x, int64_t channels, float mean) {
  const typename S::F center = S::splat(mean);
  typename S::F sum = S::splat(0.0F);
  int64_t c = 0;
  for (; c + 8 <= channels; c += 8) {
    const typename S::F change = S::sub(S::load(x + c), center);
    sum = S::fma(change, change, sum);
  }
  if (c < channels) {
    float rest[8] = {};
    for (int i = 0; c + i < channels; ++i) {
      rest[i] = x[c + i] - mean;
    }
    const typename S::F change = S::load(rest);
    sum = S::fma(change, change, sum);
  }
  return lane_sum<S>(sum);
}

template <typename S>
void row_moments(const float* x, int64_t pixels, int64_t channels, float eps, bool centered, float* pixel_affine) {
  const float count = static_cast<float>(channels);
  for (int64_t p = 0; p < pixels; ++p, x += channels, pixel_affine += 2) {
    const float mean = centered ? row_sum<S>(x, channels) / count : 0.0F;
    const float variance = row_square_sum<S>(x, channels, mean) / count;
    const float factor = 1.0F / std::sqrt(variance + eps);
    const float offset = mean * factor;
    pixel_affine[0] = factor;
    pixel_affine[1] = -offset;
  }
}

}  // namespace modiff
