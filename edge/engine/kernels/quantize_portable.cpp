#include <algorithm>

#include "kernels/kernels.h"

namespace modiff {
namespace {

// 2^23 + 2^22: adding and subtracting it rounds a float below 2^22 to the nearest integer, ties to even.
constexpr float kRoundingBias = 12582912.0F;
// Every code lies far inside; clamping here first keeps infinities out of the rounding.
constexpr float kFloatBound = 4096.0F;

}  // namespace

QuantizeOutcome quantize_portable(const QuantizePass& pass, const float* x, int16_t* lattice, int8_t* codes,
                                  size_t count) {
  const float scale = 1.0F / static_cast<float>(1 << pass.exponent);
  const float inverse_step = pass.inverse_step;
  const int exponent = pass.exponent;
  const int limit = pass.limit;
  uint32_t saturated = 0;
  uint64_t saturated_total = 0;
  int any = 0;
  for (size_t i = 0; i < count; ++i) {
    const int a = lattice[i];
    const float t = x[i] * inverse_step;
    const float change = t - static_cast<float>(a);
    const float scaled = change * scale;
    const bool is_number = scaled == scaled;
    const float bounded = is_number ? std::min(std::max(scaled, -kFloatBound), kFloatBound) : 0.0F;
    const int rounded = static_cast<int>((bounded + kRoundingBias) - kRoundingBias);
    const int lowest = std::max(-127, -((limit + a) >> exponent));
    const int highest = std::min(127, (limit - a) >> exponent);
    const int q = std::min(std::max(rounded, lowest), highest);
    saturated += static_cast<uint32_t>(q != rounded) | static_cast<uint32_t>(!is_number);
    any |= q;
    codes[i] = static_cast<int8_t>(q);
    lattice[i] = static_cast<int16_t>(a + q * (1 << exponent));
    if ((i & 0xFFFFFFU) == 0xFFFFFFU) {
      saturated_total += saturated;
      saturated = 0;
    }
  }
  return {saturated_total + saturated, any != 0};
}

}  // namespace modiff
