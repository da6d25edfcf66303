// Built with -mavx2; called only where the CPU has it. maddubs multiplies unsigned by signed bytes and adds two products
// in 16 bits, which must hold them:
//   any codes: maddubs(|w|, sign(q, w)), |w| formed once for all pixels of a tile: 2 * 127 * 127 < 2^15;
//   codes within +-64, as most are: maddubs(q + 64, w), a quarter fewer instructions: 2 * 128 * 127 < 2^15; 64 times the
//   sum of the tap's weights, formed once a block of pixels, is taken off.
// Which of them, each tile decides for each tap by the bounds of its pixels.
#include <immintrin.h>

#include "kernels/conv_tile.h"
#include "kernels/kernels.h"

namespace modiff {
namespace {

constexpr int kSmall = 64;
// Fewer pixels do not win back what the sums of the weights cost; more taps than a 9 x 9 kernel has are rare.
constexpr int kFewPixels = 8;
constexpr int kMostTaps = 81;

// Of 16 output channels: the first eight, the others.
struct Pair {
  __m256i low;
  __m256i high;
};

// What a tap adds to small codes' sums too much, and the plane's pixels from a pixel's input to the tap's.
struct SmallTap {
  Pair excess;
  ptrdiff_t pixels;
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

template <int P>
struct Sums {
  Pair sums[P];

  void add(const int8_t* weights, const int8_t* const (&pixels)[P], int quads) {
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

  void add_small(const int8_t* weights, const int8_t* const (&pixels)[P], int quads, const Pair& excess) {
    const __m256i offset = _mm256_set1_epi8(kSmall);
    for (int p = 0; p < P; ++p) {
      sums[p].low = _mm256_sub_epi32(sums[p].low, excess.low);
      sums[p].high = _mm256_sub_epi32(sums[p].high, excess.high);
    }
    for (int quad = 0; quad < quads; ++quad, weights += kOutputTile * kInputTile) {
      const Pair weight = load_weights(weights);
      for (int p = 0; p < P; ++p) {
        const __m256i pixel = _mm256_add_epi8(_mm256_set1_epi32(load_quad(pixels[p] + quad * kInputTile)), offset);
        sums[p].low = add_products(sums[p].low, pixel, weight.low);
        sums[p].high = add_products(sums[p].high, pixel, weight.high);
      }
    }
  }

  void store(TileSums<P>& out) const {
    for (int p = 0; p < P; ++p) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out[p]), sums[p].low);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out[p] + 8), sums[p].high);
    }
  }
};

// 64 * the sum of a tap's weights, per output channel.
Pair excess_of(const int8_t* weights, int quads) {
  const __m256i offset = _mm256_set1_epi8(kSmall);
  Pair sums = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int quad = 0; quad < quads; ++quad, weights += kOutputTile * kInputTile) {
    const Pair weight = load_weights(weights);
    sums.low = add_products(sums.low, offset, weight.low);
    sums.high = add_products(sums.high, offset, weight.high);
  }
  return sums;
}

// `small`: of each tap, or nullptr where all codes are to be taken for any.
template <int P>
void run_choosing_tile(const ConvBlock& block, const ConvPixel* pixels, const SmallTap* small) {
  ptrdiff_t in_plane[P];
  for (int p = 0; p < P; ++p) {
    in_plane[p] = pixels[p].input / block.pixel_bytes;
  }
  Sums<P> sums = {};
  for (int t = 0; t < block.tap_count; ++t) {
    const int8_t* inputs[P];
    bool is_small = small != nullptr;
    for (int p = 0; p < P; ++p) {
      inputs[p] = block.plane + pixels[p].input + block.taps[t].pixels;
      is_small = is_small && block.bounds[in_plane[p] + small[t].pixels] <= kSmall;
    }
    const int8_t* weights = block.weights + block.taps[t].weights;
    if (is_small) {
      sums.add_small(weights, inputs, block.quads, small[t].excess);
    } else {
      sums.add(weights, inputs, block.quads);
    }
  }
  TileSums<P> finished;
  sums.store(finished);
  accumulate_tile<P>(block, pixels, P, finished);
}

}  // namespace

void conv_4x16_avx2(const ConvBlock& block) {
  SmallTap taps[kMostTaps];
  const bool is_worth_it = block.bounds != nullptr && block.pixel_count >= kFewPixels && block.tap_count <= kMostTaps;
  for (int t = 0; is_worth_it && t < block.tap_count; ++t) {
    const Tap& tap = block.taps[t];
    taps[t] = {excess_of(block.weights + tap.weights, block.quads), tap.pixels / block.pixel_bytes};
  }
  const SmallTap* const small = is_worth_it ? taps : nullptr;
  int first = 0;
  for (; first + 4 <= block.pixel_count; first += 4) {
    run_choosing_tile<4>(block, block.pixels + first, small);
  }
  for (; first < block.pixel_count; ++first) {
    run_choosing_tile<1>(block, block.pixels + first, small);
  }
}

void pixel_bounds_avx2(const int8_t* codes, int64_t pixels, int64_t pixel_bytes, uint8_t* bounds) {
  const int64_t whole = pixel_bytes & ~int64_t{31};
  for (int64_t pixel = 0; pixel < pixels; ++pixel, codes += pixel_bytes) {
    __m256i largest = _mm256_setzero_si256();
    for (int64_t at = 0; at < whole; at += 32) {
      const __m256i some = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + at));
      largest = _mm256_max_epu8(largest, _mm256_abs_epi8(some));
    }
    for (int64_t at = whole; at < pixel_bytes; at += kInputTile) {
      largest = _mm256_max_epu8(largest, _mm256_abs_epi8(_mm256_set1_epi32(load_quad(codes + at))));
    }
    __m128i lanes = _mm_max_epu8(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
    lanes = _mm_max_epu8(lanes, _mm_srli_epi16(lanes, 8));
    // The least of eight 16-bit numbers has an instruction: 255 less the largest byte.
    const __m128i least = _mm_minpos_epu16(_mm_sub_epi16(_mm_set1_epi16(255), _mm_and_si128(lanes, _mm_set1_epi16(255))));
    bounds[pixel] = static_cast<uint8_t>(255 - _mm_extract_epi16(least, 0));
  }
}

}  // namespace modiff
