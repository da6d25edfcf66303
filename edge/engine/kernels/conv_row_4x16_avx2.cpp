// Built with -mavx2; called only where the CPU has it. maddubs(|q|, sign(w, q)) cannot saturate: 2 * 127 * 127 < 2^15.
#include <immintrin.h>

#include <cstring>

#include "kernels/kernels.h"

namespace modiff {
namespace {

template <int P>
struct Tile {
  __m256i sums[P][2];

  inline void add_tap(const Tap& tap, ptrdiff_t offset, ptrdiff_t stride, int quads) {
    const __m256i ones = _mm256_set1_epi16(1);
    const int8_t* weights = tap.weights;
    const int8_t* first = tap.pixels + offset;
    for (; quads > 0; --quads, weights += kOutputTile * kInputTile, first += kInputTile) {
      const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
      const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + 32));
      for (int p = 0; p < P; ++p) {
        int32_t quad;
        std::memcpy(&quad, first + p * stride, sizeof(quad));
        const __m256i pixel = _mm256_set1_epi32(quad);
        const __m256i magnitude = _mm256_abs_epi8(pixel);
        const __m256i products_low = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(low, pixel));
        const __m256i products_high = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(high, pixel));
        sums[p][0] = _mm256_add_epi32(sums[p][0], _mm256_madd_epi16(products_low, ones));
        sums[p][1] = _mm256_add_epi32(sums[p][1], _mm256_madd_epi16(products_high, ones));
      }
    }
  }
};

template <int P>
inline void store_tile(const ConvRow& row, int first, const Tile<P>& tile) {
  const __m128i shift = _mm_cvtsi32_si128(row.shift);
  for (int p = 0; p < P; ++p) {
    int32_t* out = row.out + (first + p) * row.out_stride;
    if (row.out_channels == kOutputTile) {
      for (int v = 0; v < 2; ++v) {
        __m256i* place = reinterpret_cast<__m256i*>(out + v * 8);
        const __m256i sum = _mm256_sll_epi32(tile.sums[p][v], shift);
        _mm256_storeu_si256(place, _mm256_add_epi32(_mm256_loadu_si256(place), sum));
      }
      continue;
    }
    uint32_t sums[kOutputTile];
    for (int v = 0; v < 2; ++v) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + v * 8), _mm256_sll_epi32(tile.sums[p][v], shift));
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

void conv_row_4x16_avx2(const ConvRow& row) {
  int p = 0;
  for (; p + 4 <= row.pixels; p += 4) {
    run_tile<4>(row, p);
  }
  for (; p < row.pixels; ++p) {
    run_tile<1>(row, p);
  }
}

}  // namespace modiff
