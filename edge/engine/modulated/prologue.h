// What a layer does to its input before its arithmetic: cat(x, skip), norm, activation.
#pragma once

#include <cstdint>

#include "kernels/kernel_set.h"
#include "modulated/parallel.h"
#include "modulated/scratch.h"

namespace modiff {

enum class Norm { kNone = 0, kGroup = 1, kLayer = 2, kRms = 3 };

// A vector that all images share, or one for each of them.
struct ImageVector {
  const float* values = nullptr;  // [rows][channels]; nullptr: there is none
  bool per_image = false;

  const float* of(int64_t image, int64_t channels) const {
    return values == nullptr ? nullptr : values + (per_image ? image * channels : 0);
  }
};

struct Prologue {
  const float* x = nullptr;     // [images][positions][x_channels]
  const float* skip = nullptr;  // [images][positions][skip_channels], or nullptr
  int64_t images = 1;
  int64_t positions = 0;
  int64_t x_channels = 0;
  int64_t skip_channels = 0;
  Norm norm = Norm::kNone;
  int64_t groups = 1;
  float eps = 0.0F;
  ImageVector weight;
  ImageVector bias;
  Activation activation = Activation::kNone;

  int64_t channels() const { return x_channels + skip_channels; }
};

// Whether the sizes belong together.
bool is_sound(const Prologue& prologue);

// The prologue with its norm reduced to factors and offsets: rows that the kernels can sweep.
class PreparedPrologue {
 public:
  // Sums up what the norm needs. False when there is no memory.
  bool prepare(const Prologue& prologue, const KernelSet& kernels, Parallel& parallel, Scratch& scratch);

  // Channels [first, first + count) of `pixels` positions; the range must not cross from x to skip.
  PrologueRows rows(int64_t image, int64_t position, int64_t pixels, int64_t first, int64_t count) const;
  // Where x ends and skip begins; the channel count when one tensor holds all of them.
  int64_t seam() const { return source_.x_channels; }
  // Whether a channel's value depends on nothing but the channel's input.
  bool is_elementwise() const { return factor_ == nullptr; }

 private:
  bool join(const Prologue& prologue, Scratch& scratch);
  bool prepare_groups(const KernelSet& kernels, Parallel& parallel, Scratch& scratch);
  bool prepare_rows(const KernelSet& kernels, Parallel& parallel, Scratch& scratch);
  void sum_channels(const KernelSet& kernels, Parallel& parallel, const float* center, float* sums) const;

  Prologue source_;
  float* factor_ = nullptr;        // [images][channels]
  float* offset_ = nullptr;        // [images][channels]
  float* pixel_affine_ = nullptr;  // [images][positions][2]
};

}  // namespace modiff
