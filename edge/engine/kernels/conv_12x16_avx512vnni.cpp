// Built with -mavx512vnni; called only where the CPU has it. VPDPBUSD multiplies unsigned by signed bytes, so weights are
// taken as w + 128; 128 times the sum of a pixel's codes is what that adds too much, and is summed beside and taken off.
#include <immintrin.h>

#include "kernels/conv_tile.h"
#include "kernels/kernels.h"

namespace modiff {
namespace {

constexpr int kQuadsPerRegister = 16;

struct DotAvx512Vnni {
  template <int P>
  struct Sums {
    __m512i sums[P];
    __m512i excess[P];

    void add(const int8_t* weights, const int8_t* const (&pixels)[P], int quads) {
      const __m512i offset = _mm512_set1_epi8(-128);
      for (int quad = 0; quad < quads; ++quad, weights += kOutputTile * kInputTile) {
        const __m512i raised = _mm512_xor_si512(_mm512_loadu_si512(weights), offset);
        for (int p = 0; p < P; ++p) {
          const __m512i codes = _mm512_set1_epi32(load_quad(pixels[p] + quad * kInputTile));
          sums[p] = _mm512_dpbusd_epi32(sums[p], raised, codes);
        }
      }
      for (int quad = 0; quad < quads; quad += kQuadsPerRegister) {
        const int bytes = kInputTile * (quads - quad < kQuadsPerRegister ? quads - quad : kQuadsPerRegister);
        const __mmask64 mask = ~__mmask64{0} >> (64 - bytes);
        for (int p = 0; p < P; ++p) {
          const __m512i codes = _mm512_maskz_loadu_epi8(mask, pixels[p] + quad * kInputTile);
          excess[p] = _mm512_dpbusd_epi32(excess[p], offset, codes);
        }
      }
    }

    void store(TileSums<P>& out) const {
      for (int p = 0; p < P; ++p) {
        uint32_t parts[16];
        _mm512_storeu_si512(parts, excess[p]);
        uint32_t too_much = 0;
        for (const uint32_t part : parts) {
          too_much += part;
        }
        _mm512_storeu_si512(out[p], _mm512_sub_epi32(sums[p], _mm512_set1_epi32(static_cast<int>(too_much))));
      }
    }
  };
};

}  // namespace

void conv_12x16_avx512vnni(const ConvBlock& block) { run_tiles<DotAvx512Vnni, 12>(block, 0); }

}  // namespace modiff
