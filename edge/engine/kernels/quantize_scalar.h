// The delta quantization of one element: the arithmetic that the vector quantizers must equal.
#pragma once

#include <algorithm>
#include <cstdint>

namespace modiff {

// One pass: q = clamp(rne((x * inverse_step - A) * 2^-exponent)), A += q << exponent. The clamp is at +-254: a first sweep
// takes what one INT8 code holds, and a second, where the first one clamped, the rest (the spill).
struct QuantizePass {
  float inverse_step;
  int exponent;  // 0..15
  int limit;     // |A| <= limit <= 32767 holds before and after
};

struct QuantizeOutcome {
  uint64_t saturated;  // elements that the sweep clamped, or NaN
  bool changed;        // whether any code is not zero
};

class ScalarQuantizer {
 public:
  explicit ScalarQuantizer(const QuantizePass& pass)
      : pass_(pass), scale_(1.0F / static_cast<float>(1 << pass.exponent)) {}

  void one(float x, int16_t* lattice, int8_t* code) {
    const int a = *lattice;
    const int q = quantize(x, a, kCodeLimit);
    *code = static_cast<int8_t>(q);
    *lattice = static_cast<int16_t>(a + q * (1 << pass_.exponent));
  }

  // After `one`: replaces the code by its spill.
  void spill(float x, int16_t* lattice, int8_t* code) {
    const int first = *code;
    const int a = *lattice - first * (1 << pass_.exponent);
    const int q = quantize(x, a, 2 * kCodeLimit);
    *code = static_cast<int8_t>(q - first);
    *lattice = static_cast<int16_t>(a + q * (1 << pass_.exponent));
    spilled_ |= q - first;
  }

  QuantizeOutcome outcome() const { return {saturated_, any_ != 0}; }
  QuantizeOutcome spill_outcome() const { return {saturated_, spilled_ != 0}; }

 private:
  static constexpr int kCodeLimit = 127;

  int quantize(float x, int a, int code_limit) {
    // 2^23 + 2^22: adding and subtracting it rounds a float below 2^22 to the nearest integer, ties to even.
    constexpr float kRoundingBias = 12582912.0F;
    // Every code lies far inside; clamping here first keeps infinities out of the rounding.
    constexpr float kFloatBound = 4096.0F;
    const float t = x * pass_.inverse_step;
    const float change = t - static_cast<float>(a);
    const float scaled = change * scale_;
    const bool is_number = scaled == scaled;
    const float bounded = is_number ? std::min(std::max(scaled, -kFloatBound), kFloatBound) : 0.0F;
    const int rounded = static_cast<int>((bounded + kRoundingBias) - kRoundingBias);
    const int lowest = std::max(-code_limit, -((pass_.limit + a) >> pass_.exponent));
    const int highest = std::min(code_limit, (pass_.limit - a) >> pass_.exponent);
    const int q = std::min(std::max(rounded, lowest), highest);
    saturated_ += static_cast<uint64_t>(q != rounded || !is_number);
    any_ |= q;
    return q;
  }

  QuantizePass pass_;
  float scale_;
  uint64_t saturated_ = 0;
  int any_ = 0;
  int spilled_ = 0;
};

}  // namespace modiff
