// log, sin and cos of doubles with a fixed order of operations: the C library's may differ in the last bit from one
// machine to another, and then the noise would, too. Relative error below 3e-16 (of the sine near pi: absolute).
#pragma once

#include <cmath>

namespace modiff {

// Of a positive, normal number. log m = 2 artanh((m - 1) / (m + 1)) for m in [sqrt(1/2), sqrt(2)).
inline double fixed_log(double x) {
  constexpr double kRootHalf = 0.70710678118654752440;
  constexpr double kLn2High = 0x1.62e42fefp-1;  // 32 bits: products with exponents are exact
  constexpr double kLn2Low = 0x1.473de6af278edp-34;
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < kRootHalf) {
    m *= 2.0;
    --exponent;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double z = s * s;
  double series = 0.0;
  for (int k = 23; k >= 3; k -= 2) {
    series = (series + 1.0 / k) * z;
  }
  const double e = exponent;
  return e * kLn2High + (2.0 * s + (2.0 * s * series + e * kLn2Low));
}

struct SineCosine {
  double sine;
  double cosine;
};

// Of an angle in [0, 2 pi]: reduced to [-pi/4, pi/4] around a multiple of pi/2, then the Taylor series.
inline SineCosine fixed_sine_cosine(double angle) {
  constexpr double kTwoOverPi = 0.63661977236758134308;
  constexpr double kHalfPiHigh = 0x1.921fb544p+0;  // 33 bits: four times it is exact
  constexpr double kHalfPiLow = 0x1.0b4611a626331p-34;
  const int quadrant = static_cast<int>(angle * kTwoOverPi + 0.5);
  const double r = (angle - quadrant * kHalfPiHigh) - quadrant * kHalfPiLow;
  const double z = r * r;
  double sine = 1.0;
  double cosine = 1.0;
  for (int k = 18; k >= 2; k -= 2) {
    sine = 1.0 - z / (k * (k + 1)) * sine;
  }
  for (int k = 17; k >= 1; k -= 2) {
    cosine = 1.0 - z / (k * (k + 1)) * cosine;
  }
  sine *= r;
  switch (quadrant & 3) {
    case 0:
      return {sine, cosine};
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    default:
      return {-cosine, sine};
  }
}

}  // namespace modiff
