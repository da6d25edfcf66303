// exp, and what is made of it, in float32 without a library: the same bits on every machine, and loops that vectorize.
//
// Only sums, products, one quotient and shifts, each rounded once (-ffp-contract=off). exp is within 2 units in the
// last place on [-87, 88]; outside it stays at the value of the nearer end. NaN stays NaN.
#pragma once

#include <cstdint>
#include <cstring>

namespace modiff {

inline uint32_t float_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// exp(x) = 2^n * exp(r), n = rne(x / ln 2), |r| <= ln(2) / 2; ln 2 in two parts (Cody and Waite, 1980), the
// polynomial is that of Cephes' expf (Moshier).
inline float exp_float(float x) {
  constexpr float kLowest = -87.0F;
  constexpr float kHighest = 88.0F;
  constexpr float kPerLn2 = 1.44269504088896341F;
  constexpr float kRoundingBias = 12582912.0F;  // 2^23 + 2^22: its last bits count units
  constexpr uint32_t kBiasBits = 0x4B400000U;   // of kRoundingBias
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  x = x < kLowest ? kLowest : x;
  x = x > kHighest ? kHighest : x;
  const float biased = x * kPerLn2 + kRoundingBias;
  const float n = biased - kRoundingBias;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  const float e = (p * (r * r) + r) + 1.0F;
  const uint32_t exponent = float_bits(biased) - kBiasBits + 127U;
  return e * float_of(exponent << 23U);
}

}  // namespace modiff
