// Built with the AVX-512 flags of its name; called only where CPU and kernel have them. VPDPBUSD multiplies unsigned by
// signed bytes: a code enters as code + 128, and 128 times the sum of the used weights is taken off every channel. 32-bit
// sums wrap around, so that the result is the same integer.
#include <immintrin.h>

#include "kernels/conv_tile.h"
#include "kernels/kernels.h"

namespace modiff {
namespace {

constexpr int kWidePixels = 12;

__m512i load_weights(const int8_t* weights) { return _mm512_loadu_si512(weights); }

// 128 * the sum of the weights of all taps, per output channel.
__m512i excess(const ConvBlock& block) {
  const __m512i offset = _mm512_set1_epi8(-128);
  __m512i even = _mm512_setzero_si512();
  __m512i odd = even;
  for (int t = 0; t < block.tap_count; ++t) {
    const int8_t* weights = block.weights + block.taps[t].weights;
    int quad = 0;
    for (; quad + 2 <= block.quads; quad += 2, weights += 128) {
      even = _mm512_dpbusd_epi32(even, offset, load_weights(weights));
      odd = _mm512_dpbusd_epi32(odd, offset, load_weights(weights + 64));
    }
    if (quad < block.quads) {
      even = _mm512_dpbusd_epi32(even, offset, load_weights(weights));
    }
  }
  return _mm512_add_epi32(even, odd);
}

template <int P>
void run_wide_tile(const ConvBlock& block, const ConvPixel* pixels, __m512i taken_off) {
  const __m512i offset = _mm512_set1_epi8(-128);
  __m512i sums[P];
  for (__m512i& sum : sums) {
    sum = _mm512_setzero_si512();
  }
  for (int t = 0; t < block.tap_count; ++t) {
    const int8_t* inputs[P];
    for (int p = 0; p < P; ++p) {
      inputs[p] = block.plane + pixels[p].input + block.taps[t].pixels;
    }
    const int8_t* weights = block.weights + block.taps[t].weights;
    const ptrdiff_t end = block.quads * ptrdiff_t{kInputTile};
    for (ptrdiff_t at = 0; at < end; at += kInputTile, weights += kOutputTile * kInputTile) {
      const __m512i weight = load_weights(weights);
      for (int p = 0; p < P; ++p) {
        const __m512i codes = _mm512_xor_si512(_mm512_set1_epi32(load_quad(inputs[p] + at)), offset);
        sums[p] = _mm512_dpbusd_epi32(sums[p], codes, weight);
      }
    }
  }
  const __m128i shift = _mm_cvtsi32_si128(block.shift);
  const __mmask16 lanes = static_cast<__mmask16>((1U << block.channels) - 1U);
  for (int p = 0; p < P; ++p) {
    int32_t* const out = block.accumulator + pixels[p].output;
    const __m512i sum = _mm512_maskz_sll_epi32(lanes, _mm512_sub_epi32(sums[p], taken_off), shift);
    _mm512_mask_storeu_epi32(out, lanes, _mm512_add_epi32(_mm512_maskz_loadu_epi32(lanes, out), sum));
  }
}

}  // namespace

void conv_12x16_avx512vnni(const ConvBlock& block) {
  const __m512i taken_off = excess(block);
  int first = 0;
  for (; first + kWidePixels <= block.pixel_count; first += kWidePixels) {
    run_wide_tile<kWidePixels>(block, block.pixels + first, taken_off);
  }
  for (; first + 4 <= block.pixel_count; first += 4) {
    run_wide_tile<4>(block, block.pixels + first, taken_off);
  }
  for (; first < block.pixel_count; ++first) {
    run_wide_tile<1>(block, block.pixels + first, taken_off);
  }
}

}  // namespace modiff
