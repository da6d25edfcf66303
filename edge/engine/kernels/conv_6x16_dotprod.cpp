// Built with -march=armv8.2-a+dotprod; called only where the CPU has it.
//
// The tile of six pixels is written in assembly: its 24 sums, six pixels and two weights are all 32 vector registers,
// which a compiler fills only by spilling. Per 16 input channels it runs 96 SDOT and 17 other instructions.
#include <arm_neon.h>

#include "kernels/conv_tile.h"
#include "kernels/kernels.h"

namespace modiff {
namespace {

constexpr int kTallPixels = 6;

// What the assembly reads.
struct TallTile {
  const int8_t* pixels[kTallPixels];
  const Tap* taps;
  int64_t tap_count;
  const int8_t* weights;
  int64_t whole;  // fours of quads
  int64_t rest;   // quads after those
  int32_t* out[kTallPixels];  // sixteen sums each, to be added to
};

// clang-format off
// Sums of pixel p: v(8 + 4p) .. v(11 + 4p), four output channels each.
#define MODIFF_CLEAR(a, b, c, d) \
  "movi v" #a ".4s, #0\n movi v" #b ".4s, #0\n movi v" #c ".4s, #0\n movi v" #d ".4s, #0\n"
#define MODIFF_DOT(sum, weight, pixel, lane) \
  "sdot v" #sum ".4s, v" #weight ".16b, v" #pixel ".4b[" #lane "]\n"
// One quad: 64 bytes of weights, at `first` and `second`, against lane `lane` of the six pixels v0..v5. Only the first
// load of a loop moves the pointer: a chain of such loads would be as long as the arithmetic.
#define MODIFF_QUAD(lane, first, second) \
  "ldp q6, q7, " first "\n" \
  MODIFF_DOT(8, 6, 0, lane) MODIFF_DOT(12, 6, 1, lane) MODIFF_DOT(16, 6, 2, lane) \
  MODIFF_DOT(20, 6, 3, lane) MODIFF_DOT(24, 6, 4, lane) MODIFF_DOT(28, 6, 5, lane) \
  MODIFF_DOT(9, 7, 0, lane) MODIFF_DOT(13, 7, 1, lane) MODIFF_DOT(17, 7, 2, lane) \
  MODIFF_DOT(21, 7, 3, lane) MODIFF_DOT(25, 7, 4, lane) MODIFF_DOT(29, 7, 5, lane) \
  "ldp q6, q7, " second "\n" \
  MODIFF_DOT(10, 6, 0, lane) MODIFF_DOT(14, 6, 1, lane) MODIFF_DOT(18, 6, 2, lane) \
  MODIFF_DOT(22, 6, 3, lane) MODIFF_DOT(26, 6, 4, lane) MODIFF_DOT(30, 6, 5, lane) \
  MODIFF_DOT(11, 7, 0, lane) MODIFF_DOT(15, 7, 1, lane) MODIFF_DOT(19, 7, 2, lane) \
  MODIFF_DOT(23, 7, 3, lane) MODIFF_DOT(27, 7, 4, lane) MODIFF_DOT(31, 7, 5, lane)
#define MODIFF_LOAD(width) \
  "ldr " #width "0, [%[p0], %[at]]\n ldr " #width "1, [%[p1], %[at]]\n ldr " #width "2, [%[p2], %[at]]\n" \
  "ldr " #width "3, [%[p3], %[at]]\n ldr " #width "4, [%[p4], %[at]]\n ldr " #width "5, [%[p5], %[at]]\n"
// Adds one pixel's sums, shifted, to where the next pointer of `outs` leads.
#define MODIFF_STORE(a, b, c, d) \
  "ldr %[at], [%[outs]], #8\n ldp q0, q1, [%[at]]\n ldp q2, q3, [%[at], #32]\n" \
  "sshl v" #a ".4s, v" #a ".4s, v7.4s\n sshl v" #b ".4s, v" #b ".4s, v7.4s\n" \
  "sshl v" #c ".4s, v" #c ".4s, v7.4s\n sshl v" #d ".4s, v" #d ".4s, v7.4s\n" \
  "add v0.4s, v0.4s, v" #a ".4s\n add v1.4s, v1.4s, v" #b ".4s\n" \
  "add v2.4s, v2.4s, v" #c ".4s\n add v3.4s, v3.4s, v" #d ".4s\n" \
  "stp q0, q1, [%[at]]\n stp q2, q3, [%[at], #32]\n"

void run_tall_tile(const TallTile& tile, int shift) {
  int32_t* const* outs = tile.out;
  const Tap* tap = tile.taps;
  int64_t taps_left = tile.tap_count;
  const int8_t* weight;
  int64_t at;
  int64_t left;
  asm volatile(
      MODIFF_CLEAR(8, 9, 10, 11) MODIFF_CLEAR(12, 13, 14, 15) MODIFF_CLEAR(16, 17, 18, 19)
      MODIFF_CLEAR(20, 21, 22, 23) MODIFF_CLEAR(24, 25, 26, 27) MODIFF_CLEAR(28, 29, 30, 31)
      "1:\n"
      "ldp %[at], %[weight], [%[tap]], #16\n"
      "add %[weight], %[weight], %[weights]\n"
      "mov %[left], %[whole]\n"
      "cbz %[left], 3f\n"
      "2:\n"
      MODIFF_LOAD(q)
      "add %[at], %[at], #16\n"
      MODIFF_QUAD(0, "[%[weight]], #256", "[%[weight], #-224]")
      MODIFF_QUAD(1, "[%[weight], #-192]", "[%[weight], #-160]")
      MODIFF_QUAD(2, "[%[weight], #-128]", "[%[weight], #-96]")
      MODIFF_QUAD(3, "[%[weight], #-64]", "[%[weight], #-32]")
      "subs %[left], %[left], #1\n"
      "b.ne 2b\n"
      "3:\n"
      "mov %[left], %[rest]\n"
      "cbz %[left], 5f\n"
      "4:\n"
      MODIFF_LOAD(s)
      "add %[at], %[at], #4\n"
      MODIFF_QUAD(0, "[%[weight]], #64", "[%[weight], #-32]")
      "subs %[left], %[left], #1\n"
      "b.ne 4b\n"
      "5:\n"
      "subs %[taps_left], %[taps_left], #1\n"
      "b.ne 1b\n"
      "dup v7.4s, %w[shift]\n"
      MODIFF_STORE(8, 9, 10, 11) MODIFF_STORE(12, 13, 14, 15) MODIFF_STORE(16, 17, 18, 19)
      MODIFF_STORE(20, 21, 22, 23) MODIFF_STORE(24, 25, 26, 27) MODIFF_STORE(28, 29, 30, 31)
      : [tap] "+r"(tap), [taps_left] "+r"(taps_left), [outs] "+r"(outs), [weight] "=&r"(weight), [at] "=&r"(at), [left] "=&r"(left)
      : [p0] "r"(tile.pixels[0]), [p1] "r"(tile.pixels[1]), [p2] "r"(tile.pixels[2]), [p3] "r"(tile.pixels[3]),
        [p4] "r"(tile.pixels[4]), [p5] "r"(tile.pixels[5]), [weights] "r"(tile.weights), [whole] "r"(tile.whole),
        [rest] "r"(tile.rest), [shift] "r"(shift)
      : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14",
        "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30",
        "v31");
}
#undef MODIFF_CLEAR
#undef MODIFF_DOT
#undef MODIFF_QUAD
#undef MODIFF_LOAD
#undef MODIFF_STORE
// clang-format on

// One SDOT per four output channels, four input channels and pixel; each loaded weight serves P pixels.
struct DotProduct {
  template <int P>
  struct Sums {
    int32x4_t sums[P][4];

    template <int Lane>
    void add_quad(const int8_t* weights, const int8x16_t (&inputs)[P]) {
      for (int v = 0; v < 4; ++v) {
        const int8x16_t weight = vld1q_s8(weights + Lane * 64 + v * 16);
        for (int p = 0; p < P; ++p) {
          sums[p][v] = vdotq_laneq_s32(sums[p][v], weight, inputs[p], Lane);
        }
      }
    }

    void add(const int8_t* weights, const int8_t* const (&pixels)[P], int quads) {
      int8x16_t inputs[P];
      int quad = 0;
      for (; quad + 4 <= quads; quad += 4, weights += 256) {
        for (int p = 0; p < P; ++p) {
          inputs[p] = vld1q_s8(pixels[p] + quad * kInputTile);
        }
        add_quad<0>(weights, inputs);
        add_quad<1>(weights, inputs);
        add_quad<2>(weights, inputs);
        add_quad<3>(weights, inputs);
      }
      for (; quad < quads; ++quad, weights += 64) {
        for (int p = 0; p < P; ++p) {
          inputs[p] = vreinterpretq_s8_s32(vdupq_n_s32(load_quad(pixels[p] + quad * kInputTile)));
        }
        add_quad<0>(weights, inputs);
      }
    }

    void store(TileSums<P>& out) const {
      for (int p = 0; p < P; ++p) {
        for (int v = 0; v < 4; ++v) {
          vst1q_u32(out[p] + v * 4, vreinterpretq_u32_s32(sums[p][v]));
        }
      }
    }
  };
};

}  // namespace

void conv_6x16_dotprod(const ConvBlock& block) {
  TallTile tile = {{}, block.taps, block.tap_count, block.weights, block.quads / 4, block.quads % 4, {}};
  const bool is_whole = block.channels == kOutputTile;
  int first = 0;
  for (; first + kTallPixels <= block.pixel_count && block.tap_count > 0; first += kTallPixels) {
    const ConvPixel* pixels = block.pixels + first;
    int32_t partial[kTallPixels][kOutputTile];
    if (!is_whole) {
      std::memset(partial, 0, sizeof(partial));
    }
    for (int p = 0; p < kTallPixels; ++p) {
      tile.pixels[p] = block.plane + pixels[p].input;
      tile.out[p] = is_whole ? block.accumulator + pixels[p].output : partial[p];
    }
    run_tall_tile(tile, block.shift);
    for (int p = 0; !is_whole && p < kTallPixels; ++p) {
      for (int c = 0; c < block.channels; ++c) {
        block.accumulator[pixels[p].output + c] += partial[p][c];
      }
    }
  }
  run_tiles<DotProduct, 4>(block, first);
}

}  // namespace modiff
