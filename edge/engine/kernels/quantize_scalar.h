// The delta quantization of one element: the arithmetic that the vector quantizers must equal.
#pragma once

#include <algorithm>
#include <cstdint>

namespace modiff {

// One pass: q = clamp(rne((x * inverse_step - A) * 2^-exponent)), A += q << exponent.
struct QuantizePass {
  float inverse_step;
  int exponent;  // 0..15
  int limit;     // |A| <= limit <= 32767 holds before and after
};

struct QuantizeOutcome {
  uint64_t saturated;  // elements that were clamped, or NaN
  bool changed;        // whether any code is not zero
};

class ScalarQuantizer {
 public:
  explicit ScalarQuantizer(const QuantizePass& pass)
      : pass_(pass), scale_(1.0F / static_cast<float>(1 << pass.exponent)) {}

  void one(float x, int16_t* lattice, int8_t* code) {
    // 2^23 + 2^22: adding and subtracting it rounds a float below 2^22 to the nearest integer, ties to even.
    constexpr float kRoundingBias = 12582912.0F;
    // Every code lies far inside; clamping here first keeps infinities out of the rounding.
    constexpr float kFloatBound = 4096.0F;
    const int a = *lattice;
    const float t = x * pass_.inverse_step;
    const float change = t - static_cast<float>(a);
    const float scaled = change * scale_;
    const bool is_number = scaled == scaled;
    const float bounded = is_number ? std::min(std::max(scaled, -kFloatBound), kFloatBound) : 0.0F;
    const int rounded = static_cast<int>((bounded + kRoundingBias) - kRoundingBias);
    const int lowest = std::max(-127, -((pass_.limit + a) >> pass_.exponent));
    const int highest = std::min(127, (pass_.limit - a) >> pass_.exponent);
    const int q = std::min(std::max(rounded, lowest), highest);
    saturated_ += static_cast<uint64_t>(q != rounded || !is_number);
    any_ |= q;
    *code = static_cast<int8_t>(q);
    *lattice = static_cast<int16_t>(a + q * (1 << pass_.exponent));
  }

  QuantizeOutcome outcome() const { return {saturated_, any_ != 0}; }

 private:
  QuantizePass pass_;
  float scale_;
  uint64_t saturated_ = 0;
  int any_ = 0;
};

}  // namespace modiff
