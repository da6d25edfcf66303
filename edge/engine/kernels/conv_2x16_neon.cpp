// ARMv8.0 (Cortex-A53, A72): no dot product, so widening multiplies of pairs and a pairwise add into 32 bits.
#include <arm_neon.h>

#include "kernels/conv_tile.h"
#include "kernels/kernels.h"

namespace modiff {
namespace {

inline int8x8_t splat_quad(const int8_t* pixel) { return vreinterpret_s8_s32(vdup_n_s32(load_quad(pixel))); }

struct PairsNeon {
  template <int P>
  struct Sums {
    // sums[p][v]: output channels 2v and 2v+1, each as two partial sums that the store adds up.
    int32x4_t sums[P][8];

    // Two quads share one 16-bit sum: 2 * 127 * 127 < 2^15.
    void add_two_quads(const int8_t* weights, const int8x8_t (&even)[P], const int8x8_t (&odd)[P]) {
      for (int v = 0; v < 8; ++v) {
        const int8x8_t even_weight = vld1_s8(weights + v * 8);
        const int8x8_t odd_weight = vld1_s8(weights + 64 + v * 8);
        for (int p = 0; p < P; ++p) {
          const int16x8_t products = vmlal_s8(vmull_s8(even_weight, even[p]), odd_weight, odd[p]);
          sums[p][v] = vpadalq_s16(sums[p][v], products);
        }
      }
    }

    void add_quad(const int8_t* weights, const int8x8_t (&quad)[P]) {
      for (int v = 0; v < 8; ++v) {
        const int8x8_t weight = vld1_s8(weights + v * 8);
        for (int p = 0; p < P; ++p) {
          sums[p][v] = vpadalq_s16(sums[p][v], vmull_s8(weight, quad[p]));
        }
      }
    }

    void add(const int8_t* weights, const int8_t* const (&pixels)[P], int quads) {
      int8x8_t even[P];
      int8x8_t odd[P];
      int quad = 0;
      for (; quad + 2 <= quads; quad += 2, weights += 128) {
        for (int p = 0; p < P; ++p) {
          even[p] = splat_quad(pixels[p] + quad * kInputTile);
          odd[p] = splat_quad(pixels[p] + quad * kInputTile + 4);
        }
        add_two_quads(weights, even, odd);
      }
      if (quad < quads) {
        for (int p = 0; p < P; ++p) {
          even[p] = splat_quad(pixels[p] + quad * kInputTile);
        }
        add_quad(weights, even);
      }
    }

    void store(TileSums<P>& out) const {
      for (int p = 0; p < P; ++p) {
        for (int v = 0; v < 4; ++v) {
          const int32x4_t sum = vpaddq_s32(sums[p][2 * v], sums[p][2 * v + 1]);
          vst1q_u32(out[p] + v * 4, vreinterpretq_u32_s32(sum));
        }
      }
    }
  };
};

}  // namespace

void conv_2x16_neon(const ConvBlock& block) { run_tiles<PairsNeon, 2>(block, 0); }

}  // namespace modiff
