#include <arm_neon.h>

#include "kernels/kernels.h"

namespace modiff {
namespace {

struct Constants {
  float32x4_t inverse_step;
  float32x4_t scale;
  int32x4_t limit;
  int32x4_t left;   // exponent
  int32x4_t right;  // -exponent
};

// Codes of four elements; adds -1 to `saturated` in each lane that was clamped or NaN.
inline int32x4_t quantize_four(const Constants& k, float32x4_t x, int32x4_t a, int32x4_t* saturated) {
  const float32x4_t t = vmulq_f32(x, k.inverse_step);
  const float32x4_t change = vsubq_f32(t, vcvtq_f32_s32(a));
  const float32x4_t scaled = vmulq_f32(change, k.scale);
  // Saturating conversion; NaN becomes 0.
  const int32x4_t rounded = vcvtnq_s32_f32(scaled);
  const int32x4_t down = vnegq_s32(vshlq_s32(vaddq_s32(k.limit, a), k.right));
  const int32x4_t up = vshlq_s32(vsubq_s32(k.limit, a), k.right);
  const int32x4_t lowest = vmaxq_s32(vdupq_n_s32(-127), down);
  const int32x4_t highest = vminq_s32(vdupq_n_s32(127), up);
  const int32x4_t q = vminq_s32(vmaxq_s32(rounded, lowest), highest);
  const uint32x4_t kept = vandq_u32(vceqq_s32(q, rounded), vceqq_f32(scaled, scaled));
  *saturated = vaddq_s32(*saturated, vreinterpretq_s32_u32(vmvnq_u32(kept)));
  return q;
}

}  // namespace

QuantizeOutcome quantize_neon(const QuantizePass& pass, const float* x, int16_t* lattice, int8_t* codes,
                              size_t count) {
  const Constants k = {vdupq_n_f32(pass.inverse_step), vdupq_n_f32(1.0F / static_cast<float>(1 << pass.exponent)),
                       vdupq_n_s32(pass.limit), vdupq_n_s32(pass.exponent), vdupq_n_s32(-pass.exponent)};
  int32x4_t saturated = vdupq_n_s32(0);
  int8x8_t any = vdup_n_s8(0);
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const int16x8_t a = vld1q_s16(lattice + i);
    const int32x4_t a_low = vmovl_s16(vget_low_s16(a));
    const int32x4_t a_high = vmovl_s16(vget_high_s16(a));
    const int32x4_t q_low = quantize_four(k, vld1q_f32(x + i), a_low, &saturated);
    const int32x4_t q_high = quantize_four(k, vld1q_f32(x + i + 4), a_high, &saturated);
    const int16x8_t q = vcombine_s16(vmovn_s32(q_low), vmovn_s32(q_high));
    const int8x8_t narrow = vmovn_s16(q);
    any = vorr_s8(any, narrow);
    vst1_s8(codes + i, narrow);
    vst1q_s16(lattice + i, vaddq_s16(a, vshlq_s16(q, vdupq_n_s16(static_cast<int16_t>(pass.exponent)))));
  }
  const QuantizeOutcome rest = quantize_portable(pass, x + i, lattice + i, codes + i, count - i);
  const bool changed = vget_lane_u64(vreinterpret_u64_s8(any), 0) != 0;
  return {static_cast<uint64_t>(-static_cast<int64_t>(vaddlvq_s32(saturated))) + rest.saturated,
          changed || rest.changed};
}

}  // namespace modiff
