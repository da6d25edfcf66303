// Eight lanes as two ARMv8.0 registers; the functions are those of simd/portable.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "kernels/quantize_scalar.h"
#include "simd/inline.h"

namespace modiff {

struct Neon {
  static constexpr int kWidth = 8;
  using Eight = Neon;

  struct F {
    float32x4_t low;
    float32x4_t high;
  };
  struct I {
    uint32x4_t low;
    uint32x4_t high;
  };
  using Quad = float32x4_t;

  MODIFF_INLINE static F load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
  MODIFF_INLINE static void store(float* p, const F& a) {
    vst1q_f32(p, a.low);
    vst1q_f32(p + 4, a.high);
  }
  MODIFF_INLINE static F splat(float a) { return {vdupq_n_f32(a), vdupq_n_f32(a)}; }
  // The compiler would load a constant that it knows again and again.
  MODIFF_INLINE static F constant(float a) {
    float32x4_t v = vdupq_n_f32(a);
    asm("" : "+w"(v));
    return {v, v};
  }
  MODIFF_INLINE static F add(const F& a, const F& b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
  MODIFF_INLINE static F sub(const F& a, const F& b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
  MODIFF_INLINE static F mul(const F& a, const F& b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
  MODIFF_INLINE static F div(const F& a, const F& b) { return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)}; }
  MODIFF_INLINE static F fma(const F& a, const F& b, const F& c) {
    return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
  }
  MODIFF_INLINE static F max(const F& a, const F& b) { return {vmaxq_f32(a.low, b.low), vmaxq_f32(a.high, b.high)}; }
  MODIFF_INLINE static F min(const F& a, const F& b) { return {vminq_f32(a.low, b.low), vminq_f32(a.high, b.high)}; }
  MODIFF_INLINE static F at_least(const F& a, const F& bound) { return max(a, bound); }
  MODIFF_INLINE static F at_most(const F& a, const F& bound) { return min(a, bound); }
  MODIFF_INLINE static F with_sign_of(const F& a, const F& b) {
    const uint32x4_t sign = vdupq_n_u32(0x80000000U);
    return {vbslq_f32(sign, a.low, b.low), vbslq_f32(sign, a.high, b.high)};
  }
  MODIFF_INLINE static F absolute(const F& a) { return {vabsq_f32(a.low), vabsq_f32(a.high)}; }

  MODIFF_INLINE static Quad load_quad(const float* p) { return vld1q_f32(p); }
  template <int Lane>
  MODIFF_INLINE static F mul_lane(const F& a, const Quad& b) {
    return {vmulq_laneq_f32(a.low, b, Lane), vmulq_laneq_f32(a.high, b, Lane)};
  }
  template <int Lane>
  MODIFF_INLINE static F fma_lane(const F& a, const Quad& b, const F& c) {
    return {vfmaq_laneq_f32(c.low, a.low, b, Lane), vfmaq_laneq_f32(c.high, a.high, b, Lane)};
  }

  MODIFF_INLINE static void transpose(F (&rows)[8]) {
    for (int i = 0; i < 8; i += 4) {
      turn(rows[i].low, rows[i + 1].low, rows[i + 2].low, rows[i + 3].low);
      turn(rows[i].high, rows[i + 1].high, rows[i + 2].high, rows[i + 3].high);
    }
    for (int i = 0; i < 4; ++i) {
      const float32x4_t above = rows[i].high;
      rows[i].high = rows[i + 4].low;
      rows[i + 4].low = above;
    }
  }

  MODIFF_INLINE static I bits(const F& a) { return {vreinterpretq_u32_f32(a.low), vreinterpretq_u32_f32(a.high)}; }
  MODIFF_INLINE static F from_bits(const I& a) { return {vreinterpretq_f32_u32(a.low), vreinterpretq_f32_u32(a.high)}; }
  MODIFF_INLINE static I add_bits(const I& a, const I& b) { return {vaddq_u32(a.low, b.low), vaddq_u32(a.high, b.high)}; }
  MODIFF_INLINE static I splat_bits(uint32_t a) { return {vdupq_n_u32(a), vdupq_n_u32(a)}; }
  template <int Count>
  MODIFF_INLINE static I shift_left(const I& a) {
    return {vshlq_n_u32(a.low, Count), vshlq_n_u32(a.high, Count)};
  }
  MODIFF_INLINE static F load_integers(const int32_t* p) {
    return {vcvtq_f32_s32(vld1q_s32(p)), vcvtq_f32_s32(vld1q_s32(p + 4))};
  }

  // The clamp runs in 16 bits: limit +- A, as unsigned numbers, and what they leave of a code fit there.
  class Quantizer {
   public:
    explicit Quantizer(const QuantizePass& pass)
        : inverse_step_(vdupq_n_f32(pass.inverse_step)),
          scale_(vdupq_n_f32(1.0F / static_cast<float>(1 << pass.exponent))),
          limit_(vdupq_n_s16(static_cast<int16_t>(pass.limit))),
          left_(vdupq_n_s16(static_cast<int16_t>(pass.exponent))),
          right_(vdupq_n_s16(static_cast<int16_t>(-pass.exponent))) {}

    MODIFF_INLINE void eight(const F& u, int16_t* lattice, int8_t* codes) {
      const int16x8_t a = vld1q_s16(lattice);
      const float32x4_t low = scaled(u.low, vmovl_s16(vget_low_s16(a)));
      const float32x4_t high = scaled(u.high, vmovl_high_s16(a));
      // Saturating conversions; NaN becomes 0.
      const int16x8_t rounded = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(low)), vcvtnq_s32_f32(high));
      const int16x8_t q = vmaxq_s16(vminq_s16(rounded, room(vsubq_s16(limit_, a))),
                                    vnegq_s16(room(vaddq_s16(limit_, a))));
      const uint16x8_t numbers = vuzp1q_u16(vreinterpretq_u16_u32(vceqq_f32(low, low)),
                                            vreinterpretq_u16_u32(vceqq_f32(high, high)));
      const uint16x8_t kept = vandq_u16(vceqq_s16(q, rounded), numbers);
      saturated_ = vpadalq_s16(saturated_, vreinterpretq_s16_u16(vmvnq_u16(kept)));
      any_ = vorrq_s16(any_, q);
      vst1_s8(codes, vmovn_s16(q));
      vst1q_s16(lattice, vaddq_s16(a, vshlq_s16(q, left_)));
    }

    QuantizeOutcome outcome() const {
      const uint64_t saturated = static_cast<uint64_t>(-static_cast<int64_t>(vaddlvq_s32(saturated_)));
      return {saturated, vmaxvq_u16(vreinterpretq_u16_s16(any_)) != 0};
    }

   private:
    float32x4_t scaled(float32x4_t u, int32x4_t a) const {
      return vmulq_f32(vsubq_f32(vmulq_f32(u, inverse_step_), vcvtq_f32_s32(a)), scale_);
    }
    // How far a code may go towards a bound that is `distance` away, an unsigned number.
    int16x8_t room(int16x8_t distance) const {
      const uint16x8_t units = vshlq_u16(vreinterpretq_u16_s16(distance), right_);
      return vreinterpretq_s16_u16(vminq_u16(units, vdupq_n_u16(127)));
    }

    float32x4_t inverse_step_;
    float32x4_t scale_;
    int16x8_t limit_;
    int16x8_t left_;
    int16x8_t right_;
    int32x4_t saturated_ = vdupq_n_s32(0);  // -1 for each
    int16x8_t any_ = vdupq_n_s16(0);
  };

 private:
  // Four vectors of four lanes.
  MODIFF_INLINE static void turn(float32x4_t& a, float32x4_t& b, float32x4_t& c, float32x4_t& d) {
    const float64x2_t ab0 = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
    const float64x2_t ab1 = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
    const float64x2_t cd0 = vreinterpretq_f64_f32(vtrn1q_f32(c, d));
    const float64x2_t cd1 = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
    a = vreinterpretq_f32_f64(vtrn1q_f64(ab0, cd0));
    b = vreinterpretq_f32_f64(vtrn1q_f64(ab1, cd1));
    c = vreinterpretq_f32_f64(vtrn2q_f64(ab0, cd0));
    d = vreinterpretq_f32_f64(vtrn2q_f64(ab1, cd1));
  }
};

}  // namespace modiff
