#include <cstring>

#include "kernels/kernels.h"

namespace modiff {

// One pixel at a time; unsigned accumulators, so that wrapping around is defined.
void conv_row_1x16_portable(const ConvRow& row) {
  for (int p = 0; p < row.pixels; ++p) {
    uint32_t sums[kOutputTile] = {};
    for (int t = 0; t < row.tap_count; ++t) {
      const int8_t* pixel = row.taps[t].pixels + p * row.pixel_stride;
      const int8_t* weights = row.taps[t].weights;
      for (int quad = 0; quad < row.quads; ++quad, pixel += kInputTile, weights += kOutputTile * kInputTile) {
        int32_t zero_test;
        std::memcpy(&zero_test, pixel, sizeof(zero_test));
        if (zero_test == 0) {
          continue;
        }
        for (int c = 0; c < kOutputTile; ++c) {
          int sum = 0;
          for (int i = 0; i < kInputTile; ++i) {
            sum += pixel[i] * weights[c * kInputTile + i];
          }
          sums[c] += static_cast<uint32_t>(sum);
        }
      }
    }
    int32_t* out = row.out + p * row.out_stride;
    for (int c = 0; c < row.out_channels; ++c) {
      out[c] = static_cast<int32_t>(static_cast<uint32_t>(out[c]) + (sums[c] << row.shift));
    }
  }
}

}  // namespace modiff
