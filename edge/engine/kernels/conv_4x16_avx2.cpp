// Built with -mavx2; called only where the CPU has it. maddubs(|w|, sign(q, w)) cannot saturate: 2 * 127 * 127 < 2^15.
// |w| is formed once for all pixels of a tile.
#include <immintrin.h>

#include "kernels/conv_tile.h"
#include "kernels/kernels.h"

namespace modiff {
namespace {

struct MaddubsAvx2 {
  template <int P>
  struct Sums {
    __m256i sums[P][2];

    void add(const int8_t* weights, const int8_t* const (&pixels)[P], int quads) {
      const __m256i ones = _mm256_set1_epi16(1);
      for (int quad = 0; quad < quads; ++quad, weights += kOutputTile * kInputTile) {
        const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
        const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + 32));
        const __m256i size_low = _mm256_abs_epi8(low);
        const __m256i size_high = _mm256_abs_epi8(high);
        for (int p = 0; p < P; ++p) {
          const __m256i pixel = _mm256_set1_epi32(load_quad(pixels[p] + quad * kInputTile));
          const __m256i products_low = _mm256_maddubs_epi16(size_low, _mm256_sign_epi8(pixel, low));
          const __m256i products_high = _mm256_maddubs_epi16(size_high, _mm256_sign_epi8(pixel, high));
          sums[p][0] = _mm256_add_epi32(sums[p][0], _mm256_madd_epi16(products_low, ones));
          sums[p][1] = _mm256_add_epi32(sums[p][1], _mm256_madd_epi16(products_high, ones));
        }
      }
    }

    void store(TileSums<P>& out) const {
      for (int p = 0; p < P; ++p) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out[p]), sums[p][0]);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out[p] + 8), sums[p][1]);
      }
    }
  };
};

}  // namespace

void conv_4x16_avx2(const ConvBlock& block) { run_tiles<MaddubsAvx2, 4>(block, 0); }

}  // namespace modiff
