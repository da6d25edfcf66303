// Elementwise and row-wise float operators that the runtime has only as slow library calls.
#pragma once

#include <cstddef>

namespace modiff {

// out = 1 / (1 + exp(-x)); in and out may be the same.
void sigmoid(const float* x, size_t count, float* out);

// Each row of `columns` values: out = exp(x - max) / sum of them. in and out may be the same.
void softmax_rows(const float* x, size_t rows, size_t columns, float* out);

}  // namespace modiff
