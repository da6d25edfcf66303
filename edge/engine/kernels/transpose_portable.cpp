#include <algorithm>

#include "kernels/kernels.h"

namespace modiff {

// In square blocks, so that both sides stay within the first-level cache.
void transpose_portable(const float* in, ptrdiff_t in_stride, int rows, int columns, float* out,
                        ptrdiff_t out_stride) {
  constexpr int kBlock = 16;
  for (int r0 = 0; r0 < rows; r0 += kBlock) {
    const int r1 = std::min(rows, r0 + kBlock);
    for (int c0 = 0; c0 < columns; c0 += kBlock) {
      const int c1 = std::min(columns, c0 + kBlock);
      for (int c = c0; c < c1; ++c) {
        for (int r = r0; r < r1; ++r) {
          out[c * out_stride + r] = in[r * in_stride + c];
        }
      }
    }
  }
}

}  // namespace modiff
