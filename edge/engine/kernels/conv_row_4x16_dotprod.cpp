// Built with -march=armv8.2-a+dotprod; called only where the CPU has it.
#include <arm_neon.h>

#include <cstring>

#include "kernels/kernels.h"

namespace modiff {
namespace {

// One SDOT per four output channels, four input channels and pixel; each loaded weight serves P pixels.
template <int P>
struct Tile {
  int32x4_t sums[P][4];

  template <int Lane>
  inline void add_quad(const int8_t* weights, const int8x16_t (&pixels)[P]) {
    for (int v = 0; v < 4; ++v) {
      const int8x16_t weight = vld1q_s8(weights + Lane * 64 + v * 16);
      for (int p = 0; p < P; ++p) {
        sums[p][v] = vdotq_laneq_s32(sums[p][v], weight, pixels[p], Lane);
      }
    }
  }

  inline void add_tap(const Tap& tap, ptrdiff_t offset, ptrdiff_t stride, int quads) {
    const int8_t* weights = tap.weights;
    const int8_t* first = tap.pixels + offset;
    int8x16_t pixels[P];
    for (; quads >= 4; quads -= 4, weights += 256, first += 16) {
      for (int p = 0; p < P; ++p) {
        pixels[p] = vld1q_s8(first + p * stride);
      }
      add_quad<0>(weights, pixels);
      add_quad<1>(weights, pixels);
      add_quad<2>(weights, pixels);
      add_quad<3>(weights, pixels);
    }
    for (; quads > 0; --quads, weights += 64, first += 4) {
      for (int p = 0; p < P; ++p) {
        int32_t quad;
        std::memcpy(&quad, first + p * stride, sizeof(quad));
        pixels[p] = vreinterpretq_s8_s32(vdupq_n_s32(quad));
      }
      add_quad<0>(weights, pixels);
    }
  }
};

template <int P>
inline void store_tile(const ConvRow& row, int first, const Tile<P>& tile) {
  const int32x4_t shift = vdupq_n_s32(row.shift);
  for (int p = 0; p < P; ++p) {
    int32_t* out = row.out + (first + p) * row.out_stride;
    if (row.out_channels == kOutputTile) {
      for (int v = 0; v < 4; ++v) {
        vst1q_s32(out + v * 4, vaddq_s32(vld1q_s32(out + v * 4), vshlq_s32(tile.sums[p][v], shift)));
      }
      continue;
    }
    uint32_t sums[kOutputTile];
    for (int v = 0; v < 4; ++v) {
      vst1q_u32(sums + v * 4, vreinterpretq_u32_s32(vshlq_s32(tile.sums[p][v], shift)));
    }
    for (int c = 0; c < row.out_channels; ++c) {
      out[c] = static_cast<int32_t>(static_cast<uint32_t>(out[c]) + sums[c]);
    }
  }
}

template <int P>
void run_tile(const ConvRow& row, int first) {
  Tile<P> tile = {};
  for (int t = 0; t < row.tap_count; ++t) {
    tile.add_tap(row.taps[t], first * row.pixel_stride, row.pixel_stride, row.quads);
  }
  store_tile<P>(row, first, tile);
}

}  // namespace

void conv_row_4x16_dotprod(const ConvRow& row) {
  int p = 0;
  for (; p + 4 <= row.pixels; p += 4) {
    run_tile<4>(row, p);
  }
  switch (row.pixels - p) {
    case 3:
      run_tile<3>(row, p);
      break;
    case 2:
      run_tile<2>(row, p);
      break;
    case 1:
      run_tile<1>(row, p);
      break;
    default:
      break;
  }
}

}  // namespace modiff
