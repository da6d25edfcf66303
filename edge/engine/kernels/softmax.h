// Softmax of rows in memory; inside an attention, kernels/attention.h has its own.
#pragma once

#include "kernels/elementwise.h"
#include "kernels/moments.h"

namespace modiff {

template <typename S>
float row_maximum(const float* x, size_t columns) {
  typename S::F most = S::splat(x[0]);
  size_t i = 0;
  for (; i + 8 <= columns; i += 8) {
    most = S::max(S::load(x + i), most);
  }
  float lanes[8];
  S::store(lanes, most);
  float found = x[0];
  for (const float lane : lanes) {
    found = lane > found ? lane : found;
  }
  for (; i < columns; ++i) {
    found = x[i] > found ? x[i] : found;
  }
  return found;
}

// A NaN spoils its row: its own exponential makes the sum NaN, whatever the maximum is.
template <typename S>
void softmax_rows(const float* x, size_t rows, size_t columns, float* out) {
  using F = typename S::F;
  const ExpOfNegated<S> exp_of_negated;
  for (size_t row = 0; row < rows; ++row, x += columns, out += columns) {
    const F most = S::splat(row_maximum<S>(x, columns));
    map_each<S>(x, columns, out, [&](const F& v) { return exp_of_negated(S::sub(most, v)); });
    const F sum = S::splat(row_sum<S>(out, static_cast<int64_t>(columns)));
    map_each<S>(out, columns, out, [&](const F& v) { return S::div(v, sum); });
  }
}

}  // namespace modiff
