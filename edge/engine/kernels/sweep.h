// The prologue of a layer and what becomes of it, in one pass over memory: quantized against the lattice, or stored.
#pragma once

#include "floats/functions.h"
#include "kernels/kernel_set.h"

namespace modiff {

// What the prologue does before the activation.
enum class Affine { kNone, kChannel, kPixelAndChannel };

// Takes the values of eight (or fewer) channels of one pixel.
template <typename S>
class QuantizeSink {
 public:
  static constexpr bool kIsHot = true;

  QuantizeSink(const QuantizeRows& rows, const QuantizePass& pass) : rows_(rows), vector_(pass), scalar_(pass) {}

  MODIFF_INLINE void eight(const typename S::F& u, int64_t pixel, int64_t channel) {
    vector_.eight(u, rows_.lattice + pixel * rows_.lattice_stride + channel,
                  rows_.codes + pixel * rows_.codes_stride + channel);
  }
  MODIFF_INLINE void some(const typename S::F& u, int64_t pixel, int64_t channel, int count) {
    float lanes[8];
    S::store(lanes, u);
    for (int i = 0; i < count; ++i) {
      scalar_.one(lanes[i], rows_.lattice + pixel * rows_.lattice_stride + channel + i,
                  rows_.codes + pixel * rows_.codes_stride + channel + i);
    }
  }
  QuantizeOutcome outcome() const {
    const QuantizeOutcome a = vector_.outcome();
    const QuantizeOutcome b = scalar_.outcome();
    return {a.saturated + b.saturated, a.changed || b.changed};
  }

 private:
  QuantizeRows rows_;
  typename S::Quantizer vector_;
  ScalarQuantizer scalar_;
};

template <typename S>
class StoreSink {
 public:
  static constexpr bool kIsHot = false;

  StoreSink(float* out, ptrdiff_t stride) : out_(out), stride_(stride) {}

  MODIFF_INLINE void eight(const typename S::F& u, int64_t pixel, int64_t channel) { S::store(out_ + pixel * stride_ + channel, u); }
  MODIFF_INLINE void some(const typename S::F& u, int64_t pixel, int64_t channel, int count) {
    store_some<S>(out_ + pixel * stride_ + channel, u, count);
  }

 private:
  float* out_;
  ptrdiff_t stride_;
};

// The activation is known to the compiler where speed matters most.
enum class Known { kNone, kSilu, kAny };

template <typename S, Affine K, Known A, typename Sink>
void sweep_rows(const PrologueRows& rows, Sink& sink) {
  const Activation kind = A == Known::kNone ? Activation::kNone : rows.activation;
  using F = typename S::F;
  const Silu<S> silu;
  const auto activated = [&](const F& u) { return A == Known::kSilu ? silu(u) : activate<S>(kind, u); };
  Sink local = sink;
  const int64_t whole = rows.channels & ~int64_t{7};
  const int rest = static_cast<int>(rows.channels - whole);
  for (int64_t pixel = 0; pixel < rows.pixels; ++pixel) {
    const float* x = rows.x + pixel * rows.x_stride;
    F p = S::splat(1.0F);
    F q = p;
    if (K == Affine::kPixelAndChannel) {
      p = S::splat(rows.pixel_affine[2 * pixel]);
      q = S::splat(rows.pixel_affine[2 * pixel + 1]);
    }
    for (int64_t c = 0; c < whole; c += 8) {
      F u = S::load(x + c);
      u = K == Affine::kPixelAndChannel ? S::fma(u, p, q) : u;
      u = K != Affine::kNone ? S::fma(u, S::load(rows.factor + c), S::load(rows.offset + c)) : u;
      local.eight(activated(u), pixel, c);
    }
    if (rest > 0) {
      F u = load_some<S>(x + whole, rest);
      u = K == Affine::kPixelAndChannel ? S::fma(u, p, q) : u;
      if (K != Affine::kNone) {
        u = S::fma(u, load_some<S>(rows.factor + whole, rest), load_some<S>(rows.offset + whole, rest));
      }
      local.some(activated(u), pixel, whole, rest);
    }
  }
  sink = local;
}

template <typename S, Affine K, typename Sink>
void sweep_activated(const PrologueRows& rows, Sink& sink) {
  if constexpr (Sink::kIsHot) {
    if (rows.activation == Activation::kNone) {
      return sweep_rows<S, K, Known::kNone>(rows, sink);
    }
    if (rows.activation == Activation::kSilu) {
      return sweep_rows<S, K, Known::kSilu>(rows, sink);
    }
  }
  return sweep_rows<S, K, Known::kAny>(rows, sink);
}

template <typename S, typename Sink>
void sweep(const PrologueRows& rows, Sink& sink) {
  if (rows.factor == nullptr) {
    sweep_activated<S, Affine::kNone>(rows, sink);
  } else if (rows.pixel_affine == nullptr) {
    sweep_activated<S, Affine::kChannel>(rows, sink);
  } else {
    sweep_activated<S, Affine::kPixelAndChannel>(rows, sink);
  }
}

template <typename S>
QuantizeOutcome quantize_rows(const PrologueRows& rows, const QuantizeRows& places, const QuantizePass& pass) {
  QuantizeSink<S> sink(places, pass);
  sweep<S>(rows, sink);
  return sink.outcome();
}

template <typename S>
void store_rows(const PrologueRows& rows, float* out, ptrdiff_t out_stride) {
  StoreSink<S> sink(out, out_stride);
  sweep<S>(rows, sink);
}

}  // namespace modiff
