// From accumulators to the layer's output, sixteen channels of a pixel at a time.
#pragma once

#include "floats/functions.h"
#include "kernels/kernel_set.h"

namespace modiff {

template <typename S>
typename S::F activate_by_kind(Activation kind, const typename S::F& x) {
  switch (kind) {
    case Activation::kSilu:
      return silu<S>(x);
    case Activation::kGelu:
      return gelu<S>(x);
    case Activation::kGeluTanh:
      return gelu_tanh<S>(x);
    case Activation::kRelu:
      return relu<S>(x);
    case Activation::kNone:
      break;
  }
  return x;
}

// A block's vectors for eight of its channels, and the steps in order. Rare: all of them; else only scale, bias, shift
// and add.
template <typename S, bool Rare, bool HasShift, bool HasAdd>
class EpilogueLanes {
 public:
  EpilogueLanes(const EpilogueBlock& block, int first)
      : block_(block), first_(first), share_(S::splat(block.share)) {
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

  void eight(ptrdiff_t at) const {
    const ptrdiff_t place = at + first_;
    const typename S::F residual =
        Rare && block_.residual != nullptr ? S::load_integers(block_.residual + place) : scale_;
    const typename S::F history = Rare && block_.history != nullptr ? S::load(block_.history + place) : scale_;
    const typename S::F added = HasAdd ? S::load(block_.add + place) : scale_;
    S::store(block_.out + place, run(S::load_integers(block_.accumulator + place), residual, history, added));
  }

  void some(ptrdiff_t at, int count) const {
    const ptrdiff_t place = at + first_;
    const auto integers = [&](const int32_t* tensor) {
      int32_t lanes[8] = {};
      for (int i = 0; i < count; ++i) {
        lanes[i] = tensor[place + i];
      }
      return S::load_integers(lanes);
    };
    const typename S::F residual = Rare && block_.residual != nullptr ? integers(block_.residual) : scale_;
    const typename S::F history =
        Rare && block_.history != nullptr ? load_some<S>(block_.history + place, count) : scale_;
    const typename S::F added = HasAdd ? load_some<S>(block_.add + place, count) : scale_;
    store_some<S>(block_.out + place, run(integers(block_.accumulator), residual, history, added), count);
  }

 private:
  typename S::F run(const typename S::F& accumulator, const typename S::F& residual, const typename S::F& history,
                    const typename S::F& added) const {
    typename S::F y = S::mul(scale_, accumulator);
    if (Rare && block_.residual != nullptr) {
      y = S::add(y, S::mul(residual_scale_, residual));
    }
    y = S::add(y, bias_);
    if (Rare && block_.history != nullptr) {
      y = S::add(y, S::mul(share_, S::sub(y, history)));
    }
    y = HasShift ? S::add(y, shift_) : y;
    if (Rare) {
      y = activate_by_kind<S>(block_.activation, y);
      y = block_.gate != nullptr ? S::mul(y, gate_) : y;
    }
    return HasAdd ? S::add(y, added) : y;
  }

  const EpilogueBlock& block_;
  int first_;
  typename S::F share_;
  typename S::F scale_;
  typename S::F bias_;
  typename S::F shift_;
  typename S::F residual_scale_;
  typename S::F gate_;
};

template <typename S, bool Rare, bool HasShift, bool HasAdd>
void epilogue_pixels(const EpilogueBlock& block) {
  const EpilogueLanes<S, Rare, HasShift, HasAdd> low(block, 0);
  if (block.channels == kOutputTile) {
    const EpilogueLanes<S, Rare, HasShift, HasAdd> high(block, 8);
    for (int p = 0; p < block.pixel_count; ++p) {
      low.eight(block.pixels[p].output);
      high.eight(block.pixels[p].output);
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
