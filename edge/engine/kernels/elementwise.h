// Functions of single elements, and of pairs of them, over contiguous memory.
#pragma once

#include "floats/functions.h"
#include "kernels/kernel_set.h"

namespace modiff {

// out[i] = function(x[i]); x and out may be the same.
template <typename S, typename Function>
MODIFF_INLINE void map_each(const float* x, size_t count, float* out, const Function& function) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    S::store(out + i, function(S::load(x + i)));
  }
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    store_some<S>(out + i, function(load_some<S>(x + i, rest)), rest);
  }
}

template <typename S, typename Function>
MODIFF_INLINE void map_pairs(const float* a, const float* b, size_t count, float* out, const Function& function) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    S::store(out + i, function(S::load(a + i), S::load(b + i)));
  }
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    store_some<S>(out + i, function(load_some<S>(a + i, rest), load_some<S>(b + i, rest)), rest);
  }
}

template <typename S>
void add_pairs(const float* a, const float* b, size_t count, float* out) {
  map_pairs<S>(a, b, count, out, [](const typename S::F& x, const typename S::F& y) { return S::add(x, y); });
}

template <typename S>
void multiply_pairs(const float* a, const float* b, size_t count, float* out) {
  map_pairs<S>(a, b, count, out, [](const typename S::F& x, const typename S::F& y) { return S::mul(x, y); });
}

template <typename S>
void extrapolate_pairs(const float* newest, const float* older, float share, size_t count, float* out) {
  const typename S::F ahead = S::splat(share);
  map_pairs<S>(newest, older, count, out, [&](const typename S::F& x, const typename S::F& y) {
    return S::add(x, S::mul(ahead, S::sub(x, y)));
  });
}

template <typename S>
void sigmoid(const float* x, size_t count, float* out) {
  const ExpOfNegated<S> exp_of_negated;
  const typename S::F one = S::constant(1.0F);
  map_each<S>(x, count, out, [&](const typename S::F& v) { return S::div(one, S::add(one, exp_of_negated(v))); });
}

}  // namespace modiff
