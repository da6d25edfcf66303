// Eight lanes as one AVX2 register; the functions are those of simd/portable.h. Only for files built with -mavx2 -mfma.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/quantize_scalar.h"
#include "simd/inline.h"

namespace modiff {

struct Avx2 {
  static constexpr int kWidth = 8;
  using Eight = Avx2;

  // Structures, because a bare __m256 loses its attributes as a template argument.
  struct F {
    __m256 v;
  };
  struct I {
    __m256i v;
  };
  struct Quad {
    const float* p;
  };

  MODIFF_INLINE static F load(const float* p) { return {_mm256_loadu_ps(p)}; }
  MODIFF_INLINE static void store(float* p, const F& a) { _mm256_storeu_ps(p, a.v); }
  MODIFF_INLINE static F splat(float a) { return {_mm256_set1_ps(a)}; }
  MODIFF_INLINE static F constant(float a) { return splat(a); }
  MODIFF_INLINE static F add(const F& a, const F& b) { return {_mm256_add_ps(a.v, b.v)}; }
  MODIFF_INLINE static F sub(const F& a, const F& b) { return {_mm256_sub_ps(a.v, b.v)}; }
  MODIFF_INLINE static F mul(const F& a, const F& b) { return {_mm256_mul_ps(a.v, b.v)}; }
  MODIFF_INLINE static F div(const F& a, const F& b) { return {_mm256_div_ps(a.v, b.v)}; }
  MODIFF_INLINE static F fma(const F& a, const F& b, const F& c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  // The instruction gives its second operand where one is NaN: a NaN in the first is put back.
  MODIFF_INLINE static F max(const F& a, const F& b) {
    return {_mm256_blendv_ps(_mm256_max_ps(a.v, b.v), a.v, _mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q))};
  }
  MODIFF_INLINE static F min(const F& a, const F& b) {
    return {_mm256_blendv_ps(_mm256_min_ps(a.v, b.v), a.v, _mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q))};
  }
  MODIFF_INLINE static F at_least(const F& a, const F& bound) { return {_mm256_max_ps(bound.v, a.v)}; }
  MODIFF_INLINE static F at_most(const F& a, const F& bound) { return {_mm256_min_ps(bound.v, a.v)}; }
  MODIFF_INLINE static F with_sign_of(const F& a, const F& b) {
    const __m256 sign = _mm256_set1_ps(-0.0F);
    return {_mm256_or_ps(_mm256_and_ps(sign, a.v), _mm256_andnot_ps(sign, b.v))};
  }
  MODIFF_INLINE static F absolute(const F& a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0F), a.v)}; }

  MODIFF_INLINE static Quad load_quad(const float* p) { return {p}; }
  template <int Lane>
  MODIFF_INLINE static F mul_lane(const F& a, const Quad& b) {
    return {_mm256_mul_ps(a.v, _mm256_broadcast_ss(b.p + Lane))};
  }
  template <int Lane>
  MODIFF_INLINE static F fma_lane(const F& a, const Quad& b, const F& c) {
    return {_mm256_fmadd_ps(a.v, _mm256_broadcast_ss(b.p + Lane), c.v)};
  }

  MODIFF_INLINE static void transpose(F (&rows)[8]) {
    __m256 pairs[8];
    for (int i = 0; i < 8; i += 2) {
      pairs[i] = _mm256_unpacklo_ps(rows[i].v, rows[i + 1].v);
      pairs[i + 1] = _mm256_unpackhi_ps(rows[i].v, rows[i + 1].v);
    }
    __m256 fours[8];
    for (int i = 0; i < 8; i += 4) {
      for (int half = 0; half < 2; ++half) {
        fours[i + 2 * half] = _mm256_shuffle_ps(pairs[i + half], pairs[i + 2 + half], _MM_SHUFFLE(1, 0, 1, 0));
        fours[i + 2 * half + 1] = _mm256_shuffle_ps(pairs[i + half], pairs[i + 2 + half], _MM_SHUFFLE(3, 2, 3, 2));
      }
    }
    for (int i = 0; i < 4; ++i) {
      rows[i].v = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
      rows[i + 4].v = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
    }
  }

  MODIFF_INLINE static I bits(const F& a) { return {_mm256_castps_si256(a.v)}; }
  MODIFF_INLINE static F from_bits(const I& a) { return {_mm256_castsi256_ps(a.v)}; }
  MODIFF_INLINE static I add_bits(const I& a, const I& b) { return {_mm256_add_epi32(a.v, b.v)}; }
  MODIFF_INLINE static I splat_bits(uint32_t a) { return {_mm256_set1_epi32(static_cast<int>(a))}; }
  template <int Count>
  MODIFF_INLINE static I shift_left(const I& a) {
    return {_mm256_slli_epi32(a.v, Count)};
  }
  MODIFF_INLINE static F load_integers(const int32_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }

  class Quantizer {
   public:
    explicit Quantizer(const QuantizePass& pass)
        : inverse_step_(_mm256_set1_ps(pass.inverse_step)),
          scale_(_mm256_set1_ps(1.0F / static_cast<float>(1 << pass.exponent))),
          limit_(_mm256_set1_epi32(pass.limit)),
          exponent_(_mm_cvtsi32_si128(pass.exponent)) {}

    MODIFF_INLINE void eight(const F& u, int16_t* lattice, int8_t* codes) {
      __m128i* const place = reinterpret_cast<__m128i*>(lattice);
      const __m256i a = _mm256_cvtepi16_epi32(_mm_loadu_si128(place));
      const __m256 t = _mm256_mul_ps(u.v, inverse_step_);
      const __m256 scaled = _mm256_mul_ps(_mm256_sub_ps(t, _mm256_cvtepi32_ps(a)), scale_);
      const __m256 numbers = _mm256_cmp_ps(scaled, scaled, _CMP_ORD_Q);
      // Every code lies far inside the bounds, which keep infinities out of the conversion.
      const __m256 most = _mm256_set1_ps(4096.0F);
      const __m256 bounded = _mm256_min_ps(_mm256_max_ps(_mm256_and_ps(scaled, numbers), _mm256_set1_ps(-4096.0F)), most);
      const __m256i rounded = _mm256_cvtps_epi32(bounded);
      const __m256i down = _mm256_sra_epi32(_mm256_add_epi32(limit_, a), exponent_);
      const __m256i up = _mm256_sra_epi32(_mm256_sub_epi32(limit_, a), exponent_);
      const __m256i lowest = _mm256_max_epi32(_mm256_set1_epi32(-127), _mm256_sub_epi32(_mm256_setzero_si256(), down));
      const __m256i highest = _mm256_min_epi32(_mm256_set1_epi32(127), up);
      const __m256i q = _mm256_min_epi32(_mm256_max_epi32(rounded, lowest), highest);
      const __m256i kept = _mm256_and_si256(_mm256_cmpeq_epi32(q, rounded), _mm256_castps_si256(numbers));
      saturated_ += static_cast<uint64_t>(8 - __builtin_popcount(_mm256_movemask_ps(_mm256_castsi256_ps(kept))));
      any_ = _mm256_or_si256(any_, q);
      const __m256i moved = _mm256_add_epi32(a, _mm256_sll_epi32(q, exponent_));
      _mm_storeu_si128(place, narrow(moved));
      const __m128i q16 = narrow(q);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(codes), _mm_packs_epi16(q16, q16));
    }

    QuantizeOutcome outcome() const { return {saturated_, _mm256_testz_si256(any_, any_) == 0}; }

   private:
    // Eight 32-bit lanes, each within 16 bits.
    static __m128i narrow(__m256i a) {
      return _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    }

    __m256 inverse_step_;
    __m256 scale_;
    __m256i limit_;
    __m128i exponent_;
    uint64_t saturated_ = 0;
    __m256i any_ = _mm256_setzero_si256();
  };
};

}  // namespace modiff
