// Every float kernel of one vector type, as a kernel set around a convolution.
#pragma once

#include "kernels/attention.h"
#include "kernels/epilogue.h"
#include "kernels/kernels.h"
#include "kernels/moments.h"
#include "kernels/sweep.h"

namespace modiff {

template <typename S, typename Function>
void map_pairs(const float* a, const float* b, size_t count, float* out, Function function) {
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
KernelSet float_kernels(const char* isa, void (*conv)(const ConvBlock&)) {
  return {isa,          conv,           epilogue<S>,  quantize_rows<S>,  store_rows<S>,        channel_sums<S>,
          row_moments<S>, attention<S>, add_pairs<S>, multiply_pairs<S>, extrapolate_pairs<S>};
}

}  // namespace modiff
