// Built with -march=armv8.2-a+i8mm; called only where the CPU has it.
#include <arm_neon.h>

#include "kernels/conv_tile.h"
#include "kernels/kernels.h"

namespace modiff {
namespace {

// One SMMLA: two pixels, two output channels, eight input channels. The packed weights' quads are zipped to eights.
struct MatrixI8mm {
  template <int P>
  struct Sums {
    static constexpr int kPairs = (P + 1) / 2;
    // sums[i][v]: pixels 2i and 2i+1, output channels 2v and 2v+1, row by row.
    int32x4_t sums[kPairs][8];

    static int8x16_t pixel_pair(const int8_t* const (&pixels)[P], int pair, int offset) {
      const int8x8_t first = vld1_s8(pixels[2 * pair] + offset);
      return vcombine_s8(first, 2 * pair + 1 < P ? vld1_s8(pixels[P == 1 ? 0 : 2 * pair + 1] + offset) : first);
    }

    // As pixel_pair, when four channels are all there is.
    static int8x16_t pixel_pair_of_quad(const int8_t* const (&pixels)[P], int pair, int offset) {
      const int32x2_t none = vdup_n_s32(0);
      const int32x2_t first = vset_lane_s32(load_quad(pixels[2 * pair] + offset), none, 0);
      const bool has_second = 2 * pair + 1 < P;
      const int8_t* other = pixels[P == 1 ? 0 : 2 * pair + (has_second ? 1 : 0)] + offset;
      return vreinterpretq_s8_s32(vcombine_s32(first, vset_lane_s32(load_quad(other), none, 0)));
    }

    void add_eight(const int8x16_t (&inputs)[kPairs], int32x4_t even, int32x4_t odd, int v) {
      const int8x16_t first = vreinterpretq_s8_s32(vzip1q_s32(even, odd));
      const int8x16_t second = vreinterpretq_s8_s32(vzip2q_s32(even, odd));
      for (int i = 0; i < kPairs; ++i) {
        sums[i][2 * v] = vmmlaq_s32(sums[i][2 * v], inputs[i], first);
        sums[i][2 * v + 1] = vmmlaq_s32(sums[i][2 * v + 1], inputs[i], second);
      }
    }

    void add(const int8_t* weights, const int8_t* const (&pixels)[P], int quads) {
      int8x16_t inputs[kPairs];
      int quad = 0;
      for (; quad + 2 <= quads; quad += 2, weights += 128) {
        for (int i = 0; i < kPairs; ++i) {
          inputs[i] = pixel_pair(pixels, i, quad * kInputTile);
        }
        for (int v = 0; v < 4; ++v) {
          add_eight(inputs, vreinterpretq_s32_s8(vld1q_s8(weights + v * 16)),
                    vreinterpretq_s32_s8(vld1q_s8(weights + 64 + v * 16)), v);
        }
      }
      if (quad < quads) {
        for (int i = 0; i < kPairs; ++i) {
          inputs[i] = pixel_pair_of_quad(pixels, i, quad * kInputTile);
        }
        for (int v = 0; v < 4; ++v) {
          add_eight(inputs, vreinterpretq_s32_s8(vld1q_s8(weights + v * 16)), vdupq_n_s32(0), v);
        }
      }
    }

    void store(TileSums<P>& out) const {
      for (int p = 0; p < P; ++p) {
        for (int v = 0; v < 8; ++v) {
          const uint32x4_t sum = vreinterpretq_u32_s32(sums[p / 2][v]);
          vst1_u32(out[p] + v * 2, p % 2 == 0 ? vget_low_u32(sum) : vget_high_u32(sum));
        }
      }
    }
  };
};

}  // namespace

void conv_6x16_i8mm(const ConvBlock& block) { run_tiles<MatrixI8mm, 6>(block, 0); }

}  // namespace modiff
