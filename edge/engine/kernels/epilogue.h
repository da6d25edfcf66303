// From accumulators to the layer's output, sixteen channels of a pixel at a time.
#pragma once

#include "floats/functions.h"
#include "kernels/kernel_set.h"

namespace modiff {

// A block's vectors for eight of its channels, and the steps in order. Rare: all of them; else only scale, bias, shift
// and add. Pointers are copies, so that the compiler knows that no store changes them.
template <typename S, bool Rare, bool HasShift, bool HasAdd>
class EpilogueLanes {
 public:
  using F = typename S::F;

  EpilogueLanes(const EpilogueBlock& block, int first)
      : activation_(block.activation),
        accumulator_(block.accumulator + first),
        residual_(block.residual == nullptr ? nullptr : block.residual + first),
        history_(block.history == nullptr ? nullptr : block.history + first),
        add_(block.add == nullptr ? nullptr : block.add + first),
        out_(block.out + first),
        has_gate_(block.gate != nullptr),
        share_(S::splat(block.share)) {
    const int count = block.channels - first < 8 ? block.channels - first : 8;
    const auto read = [&](const float* vector) {
      return vector == nullptr ? S::splat(0.0F) : load_some<S>(vector + first, count);
    };
    scale_ = read(block.scale);
    bias_ = read(block.bias);
    shift_ = HasShift ? read(block.shift) : bias_;
    residual_scale_ = Rare && block.residual != nullptr ? read(block.residual_scale) : bias_;
    gate_ = Rare ? read(block.gate) : bias_;
  }

  MODIFF_INLINE void eight(ptrdiff_t at) const {
    const F residual = Rare && residual_ != nullptr ? S::load_integers(residual_ + at) : scale_;
    const F history = Rare && history_ != nullptr ? S::load(history_ + at) : scale_;
    const F added = HasAdd ? S::load(add_ + at) : scale_;
    S::store(out_ + at, run(S::load_integers(accumulator_ + at), residual, history, added));
  }

  MODIFF_INLINE void some(ptrdiff_t at, int count) const {
    const auto integers = [&](const int32_t* tensor) {
      int32_t lanes[8] = {};
      for (int i = 0; i < count; ++i) {
        lanes[i] = tensor[at + i];
      }
      return S::load_integers(lanes);
    };
    const F residual = Rare && residual_ != nullptr ? integers(residual_) : scale_;
    const F history = Rare && history_ != nullptr ? load_some<S>(history_ + at, count) : scale_;
    const F added = HasAdd ? load_some<S>(add_ + at, count) : scale_;
    store_some<S>(out_ + at, run(integers(accumulator_), residual, history, added), count);
  }

 private:
  MODIFF_INLINE F run(const F& accumulator, const F& residual, const F& history, const F& added) const {
    F y = S::mul(scale_, accumulator);
    if (Rare && residual_ != nullptr) {
      y = S::add(y, S::mul(residual_scale_, residual));
    }
    y = S::add(y, bias_);
    if (Rare && history_ != nullptr) {
      y = S::add(y, S::mul(share_, S::sub(y, history)));
    }
    y = HasShift ? S::add(y, shift_) : y;
    if (Rare) {
      y = activate<S>(activation_, y);
      y = has_gate_ ? S::mul(y, gate_) : y;
    }
    return HasAdd ? S::add(y, added) : y;
  }

  Activation activation_;
  const int32_t* accumulator_;
  const int32_t* residual_;
  const float* history_;
  const float* add_;
  float* out_;
  bool has_gate_;
  F share_;
  F scale_;
  F bias_;
  F shift_;
  F residual_scale_;
  F gate_;
};

template <typename S, bool Rare, bool HasShift, bool HasAdd>
void epilogue_pixels(const EpilogueBlock& block) {
  const EpilogueLanes<S, Rare, HasShift, HasAdd> low(block, 0);
  if (block.channels == kOutputTile) {
    const EpilogueLanes<S, Rare, HasShift, HasAdd> high(block, 8);
    const ConvPixel* const end = block.pixels + block.pixel_count;
    for (const ConvPixel* pixel = block.pixels; pixel != end; ++pixel) {
      low.eight(pixel->output);
      high.eight(pixel->output);
    }
    return;
  }
  for (int first = 0; first < block.channels; first += 8) {
    const EpilogueLanes<S, Rare, HasShift, HasAdd> lanes(block, first);
    const int count = block.channels - first < 8 ? block.channels - first : 8;
    for (int p = 0; p < block.pixel_count; ++p) {
      lanes.some(block.pixels[p].output, count);
    }
  }
}

template <typename S, bool Rare>
void epilogue_shifted(const EpilogueBlock& block) {
  if (block.shift != nullptr) {
    return block.add != nullptr ? epilogue_pixels<S, Rare, true, true>(block)
                                : epilogue_pixels<S, Rare, true, false>(block);
  }
  return block.add != nullptr ? epilogue_pixels<S, Rare, false, true>(block)
                              : epilogue_pixels<S, Rare, false, false>(block);
}

template <typename S>
void epilogue(const EpilogueBlock& block) {
  const bool rare = block.residual != nullptr || block.history != nullptr || block.gate != nullptr ||
                    block.activation != Activation::kNone;
  rare ? epilogue_shifted<S, true>(block) : epilogue_shifted<S, false>(block);
}

}  // namespace modiff
