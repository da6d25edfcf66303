// exp and the activations on eight lanes of any type of simd/: sums, products, fused products, quotients and shifts in a
// fixed order, so that every machine gives the same bits.
//
// exp is within 3 units in the last place on [-87, 87]; outside it stays at the value of the nearer end. NaN stays NaN.
#pragma once

#include <cstdint>

#include "floats/activation_kind.h"
#include "simd/inline.h"

namespace modiff {

// exp(-x) = 2^n * exp(-r), n = rne(-x / ln 2), r = x + n * ln 2, |r| <= ln(2) / 2. This and the objects below are made
// before a loop, which then keeps their constants in registers.
template <typename S>
class ExpOfNegated {
 public:
  using F = typename S::F;

  MODIFF_INLINE F operator()(const F& x) const {
    const Parts parts(*this, x);
    const typename S::I power = S::add_bits(S::template shift_left<23>(parts.units), S::splat_bits(127U << 23U));
    return S::mul(parts.fraction, S::from_bits(power));
  }

  // Anything where x is NaN, which saves a product.
  MODIFF_INLINE F of_a_number(const F& x) const {
    const Parts parts(*this, x);
    return S::from_bits(S::add_bits(S::bits(parts.fraction), S::template shift_left<23>(parts.units)));
  }

 private:
  struct Parts {
    F fraction;           // exp(-r), within [0.7, 1.42]
    typename S::I units;  // n, in the low 9 bits

    MODIFF_INLINE Parts(const ExpOfNegated& c, const F& value) {
      const F x = S::at_most(S::at_least(value, c.lowest_), c.highest_);
      const F biased = S::fma(x, c.per_ln2_, c.bias_);
      const F r = S::fma(S::sub(biased, c.bias_), c.ln2_, x);
      const F square = S::mul(r, r);
      // exp(-r) = (1 - r) + r^2 * (c0 + c1 r + r^2 (c2 + c3 r)): minimax, relative error 1.05e-7.
      const F low = S::fma(r, c.c1_, c.c0_);
      const F high = S::fma(r, c.c3_, c.c2_);
      fraction = S::fma(square, S::fma(square, high, low), S::sub(c.one_, r));
      units = S::bits(biased);
    }
  };

  F lowest_ = S::constant(-87.0F);
  F highest_ = S::constant(87.0F);
  F per_ln2_ = S::constant(-1.44269504088896341F);
  F ln2_ = S::constant(0.693147180559945309F);
  F bias_ = S::constant(12582912.0F);  // 2^23 + 2^22: its last bits count units
  F one_ = S::constant(1.0F);
  F c0_ = S::constant(0.499992311000824F);
  F c1_ = S::constant(-0.16667114198207855F);
  F c2_ = S::constant(0.04189020022749901F);
  F c3_ = S::constant(-0.008312515914440155F);
};

// 2^x for x <= 0; below -100, 2^-100, which no sum of larger ones feels and no product makes subnormal. Anything where x
// is NaN.
template <typename S>
class Exp2OfNegative {
 public:
  using F = typename S::F;

  MODIFF_INLINE F operator()(const F& value) const {
    const F x = S::at_least(value, lowest_);
    const F biased = S::add(x, bias_);
    const F r = S::sub(x, S::sub(biased, bias_));  // exact, |r| <= 1/2
    // 2^r = (1 + c1 r) + r^2 ((c2 + c3 r) + r^2 (c4 + c5 r)): minimax, relative error 1.1e-7.
    const F square = S::mul(r, r);
    const F low = S::fma(r, c1_, one_);
    const F middle = S::fma(r, c3_, c2_);
    const F high = S::fma(r, c5_, c4_);
    const F fraction = S::fma(square, S::fma(square, high, middle), low);
    return S::from_bits(S::add_bits(S::bits(fraction), S::template shift_left<23>(S::bits(biased))));
  }

 private:
  F lowest_ = S::constant(-100.0F);
  F bias_ = S::constant(12582912.0F);  // 2^23 + 2^22: its last bits count units
  F one_ = S::constant(1.0F);
  F c1_ = S::constant(0.6931470036506653F);
  F c2_ = S::constant(0.24022242426872253F);
  F c3_ = S::constant(0.05550733581185341F);
  F c4_ = S::constant(0.009671512991189957F);
  F c5_ = S::constant(0.001326472731307149F);
};

// x / (1 + exp(-x)).
template <typename S>
class Silu {
 public:
  using F = typename S::F;

  MODIFF_INLINE F operator()(const F& x) const { return S::div(x, S::add(one_, exp_.of_a_number(x))); }

 private:
  ExpOfNegated<S> exp_;
  F one_ = S::constant(1.0F);
};

// x * (1 + tanh(z)) / 2 = x / (1 + exp(-2z)), z = sqrt(2 / pi) * (x + 0.044715 x^3).
template <typename S>
MODIFF_INLINE typename S::F gelu_tanh(const typename S::F& x) {
  const typename S::F square = S::mul(x, x);
  const typename S::F inner = S::fma(square, S::splat(2.0F * 0.7978845608F * 0.044715F), S::splat(2.0F * 0.7978845608F));
  return S::div(x, S::add(S::splat(1.0F), ExpOfNegated<S>().of_a_number(S::mul(x, inner))));
}

// x * (1 + erf(x / sqrt 2)) / 2, with erf of Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7).
template <typename S>
MODIFF_INLINE typename S::F gelu(const typename S::F& x) {
  using F = typename S::F;
  const F one = S::splat(1.0F);
  const F z = S::absolute(S::mul(x, S::splat(0.70710678118654752F)));
  const F t = S::div(one, S::fma(z, S::splat(0.3275911F), one));
  F p = S::fma(t, S::splat(1.061405429F), S::splat(-1.453152027F));
  p = S::fma(p, t, S::splat(1.421413741F));
  p = S::fma(p, t, S::splat(-0.284496736F));
  p = S::fma(p, t, S::splat(0.254829592F));
  const F tail = S::mul(S::mul(p, t), ExpOfNegated<S>()(S::mul(z, z)));
  const F erf = S::with_sign_of(x, S::sub(one, tail));
  const F half = S::mul(x, S::splat(0.5F));
  return S::fma(half, erf, half);
}

template <typename S>
MODIFF_INLINE typename S::F relu(const typename S::F& x) {
  // The sum makes the zero of a negative number positive.
  return S::add(S::at_least(x, S::splat(0.0F)), S::splat(0.0F));
}

template <typename S>
MODIFF_INLINE typename S::F activate(Activation kind, const typename S::F& x) {
  switch (kind) {
    case Activation::kSilu:
      return Silu<S>()(x);
    case Activation::kGelu:
      return gelu<S>(x);
    case Activation::kGeluTanh:
      return gelu_tanh<S>(x);
    case Activation::kRelu:
      return relu<S>(x);
    case Activation::kNone:
      break;
  }
  return x;
}

// The first `count` of eight lanes, zero in the others.
template <typename S>
MODIFF_INLINE typename S::F load_some(const float* p, int count) {
  float lanes[8] = {};
  for (int i = 0; i < count; ++i) {
    lanes[i] = p[i];
  }
  return S::load(lanes);
}

template <typename S>
MODIFF_INLINE void store_some(float* p, const typename S::F& a, int count) {
  float lanes[8];
  S::store(lanes, a);
  for (int i = 0; i < count; ++i) {
    p[i] = lanes[i];
  }
}

}  // namespace modiff
