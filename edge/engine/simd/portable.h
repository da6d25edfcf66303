// Eight lanes in plain C++: the oracle of the vector types, and what a CPU without any of them runs.
//
// Every type of this folder has the same functions; each rounds once, so that an algorithm written for eight lanes gives
// the same bits with all of them. `fma` is fused everywhere (std::fma where there is no instruction).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/quantize_scalar.h"
#include "simd/inline.h"

namespace modiff {

constexpr int kLanes = 8;

struct Portable {
  static constexpr int kWidth = 8;
  using Eight = Portable;  // the type of eight lanes

  struct F {
    float v[kLanes];
  };
  struct I {
    uint32_t v[kLanes];
  };
  // Four scalars, each a factor for all lanes.
  struct Quad {
    float v[4];
  };

  template <typename Function>
  static F lanes(Function function) {
    F out;
    for (int i = 0; i < kLanes; ++i) {
      out.v[i] = function(i);
    }
    return out;
  }

  static F load(const float* p) {
    F out;
    std::memcpy(out.v, p, sizeof(out.v));
    return out;
  }
  static void store(float* p, const F& a) { std::memcpy(p, a.v, sizeof(a.v)); }
  static F splat(float a) {
    return lanes([&](int) { return a; });
  }
  // As splat; where registers are many, kept in one of them.
  static F constant(float a) { return splat(a); }
  static F add(const F& a, const F& b) {
    return lanes([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F sub(const F& a, const F& b) {
    return lanes([&](int i) { return a.v[i] - b.v[i]; });
  }
  static F mul(const F& a, const F& b) {
    return lanes([&](int i) { return a.v[i] * b.v[i]; });
  }
  static F div(const F& a, const F& b) {
    return lanes([&](int i) { return a.v[i] / b.v[i]; });
  }
  // a * b + c, rounded once.
  static F fma(const F& a, const F& b, const F& c) {
    return lanes([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
  }
  // NaN where either is NaN.
  static F max(const F& a, const F& b) {
    return lanes([&](int i) { return a.v[i] > b.v[i] || a.v[i] != a.v[i] ? a.v[i] : b.v[i]; });
  }
  static F min(const F& a, const F& b) {
    return lanes([&](int i) { return a.v[i] < b.v[i] || a.v[i] != a.v[i] ? a.v[i] : b.v[i]; });
  }
  // max and min with a bound that is a number: NaN of `a` stays.
  static F at_least(const F& a, const F& bound) { return max(a, bound); }
  static F at_most(const F& a, const F& bound) { return min(a, bound); }
  // Where a < 0, -b, else b.
  static F with_sign_of(const F& a, const F& b) {
    return lanes([&](int i) { return std::copysign(b.v[i], a.v[i]); });
  }
  static F absolute(const F& a) {
    return lanes([&](int i) { return std::fabs(a.v[i]); });
  }

  static Quad load_quad(const float* p) {
    Quad out;
    std::memcpy(out.v, p, sizeof(out.v));
    return out;
  }
  template <int Lane>
  static F mul_lane(const F& a, const Quad& b) {
    return lanes([&](int i) { return a.v[i] * b.v[Lane]; });
  }
  template <int Lane>
  static F fma_lane(const F& a, const Quad& b, const F& c) {
    return lanes([&](int i) { return std::fma(a.v[i], b.v[Lane], c.v[i]); });
  }

  // Eight vectors of eight lanes.
  static void transpose(F (&rows)[8]) {
    for (int i = 0; i < 8; ++i) {
      for (int j = i + 1; j < 8; ++j) {
        const float above = rows[i].v[j];
        rows[i].v[j] = rows[j].v[i];
        rows[j].v[i] = above;
      }
    }
  }

  static I bits(const F& a) {
    I out;
    std::memcpy(out.v, a.v, sizeof(out.v));
    return out;
  }
  static F from_bits(const I& a) {
    F out;
    std::memcpy(out.v, a.v, sizeof(out.v));
    return out;
  }
  static I add_bits(const I& a, const I& b) {
    I out;
    for (int i = 0; i < kLanes; ++i) {
      out.v[i] = a.v[i] + b.v[i];
    }
    return out;
  }
  static I splat_bits(uint32_t a) {
    I out;
    for (uint32_t& lane : out.v) {
      lane = a;
    }
    return out;
  }
  template <int Count>
  static I shift_left(const I& a) {
    I out;
    for (int i = 0; i < kLanes; ++i) {
      out.v[i] = a.v[i] << Count;
    }
    return out;
  }
  // float(p[i]), rounded to nearest even.
  static F load_integers(const int32_t* p) {
    return lanes([&](int i) { return static_cast<float>(p[i]); });
  }

  class Quantizer {
   public:
    explicit Quantizer(const QuantizePass& pass) : scalar_(pass) {}
    MODIFF_INLINE void eight(const F& u, int16_t* lattice, int8_t* codes) {
      for (int i = 0; i < kLanes; ++i) {
        scalar_.one(u.v[i], lattice + i, codes + i);
      }
    }
    QuantizeOutcome outcome() const { return scalar_.outcome(); }

   private:
    ScalarQuantizer scalar_;
  };
};

}  // namespace modiff
