// The loops that every convolution kernel shares: pixels in tiles, taps, input channels, and the store.
//
// An instruction set keeps Sums<P> of P pixels and 16 output channels, and knows add(weights, pixels, quads): all input
// channels of one tap.
#pragma once

#include <cstring>

#include "kernels/kernel_set.h"

namespace modiff {

// sums[p][c]: of pixel p and output channel c.
template <int P>
using TileSums = uint32_t[P][kOutputTile];

// Unsigned, so that wrapping around is defined.
template <int P>
inline void accumulate_tile(const ConvBlock& block, const ConvPixel* pixels, int count, const TileSums<P>& sums) {
  const int shift = block.shift;
  for (int p = 0; p < count; ++p) {
    uint32_t* out = reinterpret_cast<uint32_t*>(block.accumulator + pixels[p].output);
    if (block.channels == kOutputTile) {
      for (int c = 0; c < kOutputTile; ++c) {
        out[c] += sums[p][c] << shift;
      }
      continue;
    }
    for (int c = 0; c < block.channels; ++c) {
      out[c] += sums[p][c] << shift;
    }
  }
}

template <typename Isa, int P>
inline void run_tile(const ConvBlock& block, const ConvPixel* pixels) {
  typename Isa::template Sums<P> sums = {};
  for (int t = 0; t < block.tap_count; ++t) {
    const int8_t* inputs[P];
    for (int p = 0; p < P; ++p) {
      inputs[p] = block.plane + pixels[p].input + block.taps[t].pixels;
    }
    sums.add(block.weights + block.taps[t].weights, inputs, block.quads);
  }
  TileSums<P> finished;
  sums.store(finished);
  accumulate_tile<P>(block, pixels, P, finished);
}

// Tiles of P pixels, then of half as many, down to one.
template <typename Isa, int P>
inline void run_tiles(const ConvBlock& block, int first) {
  for (; first + P <= block.pixel_count; first += P) {
    run_tile<Isa, P>(block, block.pixels + first);
  }
  if constexpr (P > 1) {
    run_tiles<Isa, P / 2>(block, first);
  }
}

// The four input channels of a quad as one number.
inline int32_t load_quad(const int8_t* pixel) {
  int32_t quad;
  std::memcpy(&quad, pixel, sizeof(quad));
  return quad;
}

}  // namespace modiff
