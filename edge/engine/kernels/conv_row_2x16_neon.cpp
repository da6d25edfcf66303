// ARMv8.0 (Cortex-A72): no dot product, so widening multiplies of pairs and a pairwise add into 32 bits.
#include <arm_neon.h>

#include <cstring>

#include "kernels/kernels.h"

namespace modiff {
namespace {

inline int8x8_t load_quad(const int8_t* pixel) {
  int32_t quad;
  std::memcpy(&quad, pixel, sizeof(quad));
  return vreinterpret_s8_s32(vdup_n_s32(quad));
}

// sums[p][v]: output channels 2v and 2v+1, each as two partial sums that the store adds up.
template <int P>
struct Tile {
  int32x4_t sums[P][8];

  // Two quads share one 16-bit sum: 2 * 127 * 127 < 2^15.
  inline void add_two_quads(const int8_t* weights, const int8x8_t (&even)[P], const int8x8_t (&odd)[P]) {
    for (int v = 0; v < 8; ++v) {
      const int8x8_t even_weight = vld1_s8(weights + v * 8);
      const int8x8_t odd_weight = vld1_s8(weights + 64 + v * 8);
      for (int p = 0; p < P; ++p) {
        const int16x8_t products = vmlal_s8(vmull_s8(even_weight, even[p]), odd_weight, odd[p]);
        sums[p][v] = vpadalq_s16(sums[p][v], products);
      }
    }
  }

  inline void add_quad(const int8_t* weights, const int8x8_t (&quad)[P]) {
    for (int v = 0; v < 8; ++v) {
      const int8x8_t weight = vld1_s8(weights + v * 8);
      for (int p = 0; p < P; ++p) {
        sums[p][v] = vpadalq_s16(sums[p][v], vmull_s8(weight, quad[p]));
      }
    }
  }

  inline void add_tap(const Tap& tap, ptrdiff_t offset, ptrdiff_t stride, int quads) {
    const int8_t* weights = tap.weights;
    const int8_t* first = tap.pixels + offset;
    int8x8_t even[P];
    int8x8_t odd[P];
    for (; quads >= 2; quads -= 2, weights += 128, first += 8) {
      for (int p = 0; p < P; ++p) {
        even[p] = load_quad(first + p * stride);
        odd[p] = load_quad(first + p * stride + 4);
      }
      add_two_quads(weights, even, odd);
    }
    if (quads > 0) {
      for (int p = 0; p < P; ++p) {
        even[p] = load_quad(first + p * stride);
      }
      add_quad(weights, even);
    }
  }
};

template <int P>
inline void store_tile(const ConvRow& row, int first, const Tile<P>& tile) {
  const int32x4_t shift = vdupq_n_s32(row.shift);
  for (int p = 0; p < P; ++p) {
    int32_t* out = row.out + (first + p) * row.out_stride;
    uint32_t sums[kOutputTile];
    for (int v = 0; v < 4; ++v) {
      const int32x4_t sum = vshlq_s32(vpaddq_s32(tile.sums[p][2 * v], tile.sums[p][2 * v + 1]), shift);
      vst1q_u32(sums + v * 4, vreinterpretq_u32_s32(sum));
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

void conv_row_2x16_neon(const ConvRow& row) {
  int p = 0;
  for (; p + 2 <= row.pixels; p += 2) {
    run_tile<2>(row, p);
  }
  if (p < row.pixels) {
    run_tile<1>(row, p);
  }
}

}  // namespace modiff
