// Built with -mavx2; called only where the CPU has it. maddubs multiplies unsigned by signed bytes and adds two products
// in 16 bits, which must hold them:
//   any codes: maddubs(|w|, sign(q, w)), |w| formed once for all pixels of a tile: 2 * 127 * 127 < 2^15;
//   codes within +-64, as most are: maddubs(q + 64, w), a quarter fewer instructions: 2 * 128 * 127 < 2^15; the sums begin
//   with -64 times the sum of the weights of such taps, which is formed once a block of pixels.
#include <immintrin.h>

#include "kernels/conv_tile.h"
#include "kernels/kernels.h"

namespace modiff {
namespace {

constexpr int kSmall = 64;
// Fewer pixels do not win back what the sum of the weights costs.
constexpr int kFewPixels = 8;

// Of 16 output channels: the first eight, the others.
struct Pair {
  __m256i low;
  __m256i high;
};

Pair load_weights(const int8_t* weights) {
  const __m256i* const halves = reinterpret_cast<const __m256i*>(weights);
  return {_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)};
}

// sums + the four products of each output channel.
__m256i add_products(__m256i sums, __m256i unsigned_bytes, __m256i signed_bytes) {
  const __m256i twos = _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
  return _mm256_add_epi32(sums, _mm256_madd_epi16(twos, _mm256_set1_epi16(1)));
}

// What the sums of a pixel begin with, and the codes that are small for this block.
struct Start {
  Pair sums;
  int small;
};

struct MaddubsAvx2 {
  template <int P>
  struct Sums {
    Pair sums[P];
    int small;

    explicit Sums(const Start& start) : small(start.small) {
      for (Pair& sum : sums) {
        sum = start.sums;
      }
    }

    void add(const int8_t* weights, const int8_t* const (&pixels)[P], int quads, int bound) {
      bound > small ? add_any(weights, pixels, quads) : add_small(weights, pixels, quads);
    }

    void store(TileSums<P>& out) const {
      for (int p = 0; p < P; ++p) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out[p]), sums[p].low);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out[p] + 8), sums[p].high);
      }
    }

   private:
    void add_any(const int8_t* weights, const int8_t* const (&pixels)[P], int quads) {
      for (int quad = 0; quad < quads; ++quad, weights += kOutputTile * kInputTile) {
        const Pair weight = load_weights(weights);
        const Pair size = {_mm256_abs_epi8(weight.low), _mm256_abs_epi8(weight.high)};
        for (int p = 0; p < P; ++p) {
          const __m256i pixel = _mm256_set1_epi32(load_quad(pixels[p] + quad * kInputTile));
          sums[p].low = add_products(sums[p].low, size.low, _mm256_sign_epi8(pixel, weight.low));
          sums[p].high = add_products(sums[p].high, size.high, _mm256_sign_epi8(pixel, weight.high));
        }
      }
    }

    void add_small(const int8_t* weights, const int8_t* const (&pixels)[P], int quads) {
      const __m256i offset = _mm256_set1_epi8(kSmall);
      for (int quad = 0; quad < quads; ++quad, weights += kOutputTile * kInputTile) {
        const Pair weight = load_weights(weights);
        for (int p = 0; p < P; ++p) {
          const __m256i pixel = _mm256_add_epi8(_mm256_set1_epi32(load_quad(pixels[p] + quad * kInputTile)), offset);
          sums[p].low = add_products(sums[p].low, pixel, weight.low);
          sums[p].high = add_products(sums[p].high, pixel, weight.high);
        }
      }
    }
  };
};

Start start_of(const ConvBlock& block) {
  const __m256i zero = _mm256_setzero_si256();
  if (block.pixel_count < kFewPixels) {
    return {{zero, zero}, 0};
  }
  const __m256i offset = _mm256_set1_epi8(kSmall);
  Pair excess = {zero, zero};
  for (int t = 0; t < block.tap_count; ++t) {
    const int8_t* weights = block.weights + block.taps[t].weights;
    const int quads = block.taps[t].bound > kSmall ? 0 : block.quads;
    for (int quad = 0; quad < quads; ++quad, weights += kOutputTile * kInputTile) {
      const Pair weight = load_weights(weights);
      excess.low = add_products(excess.low, offset, weight.low);
      excess.high = add_products(excess.high, offset, weight.high);
    }
  }
  return {{_mm256_sub_epi32(zero, excess.low), _mm256_sub_epi32(zero, excess.high)}, kSmall};
}

}  // namespace

void conv_4x16_avx2(const ConvBlock& block) { run_tiles<MaddubsAvx2, 4>(block, 0, start_of(block)); }

}  // namespace modiff
