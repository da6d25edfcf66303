#include "kernels/conv_tile.h"
#include "kernels/kernels.h"

namespace modiff {
namespace {

struct PlainC {
  template <int P>
  struct Sums {
    static_assert(P == 1, "one pixel at a time");
    uint32_t sums[kOutputTile];

    void add(const int8_t* weights, const int8_t* const (&pixels)[1], int quads) {
      const int8_t* pixel = pixels[0];
      for (int quad = 0; quad < quads; ++quad, pixel += kInputTile, weights += kOutputTile * kInputTile) {
        if (load_quad(pixel) == 0) {
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

    void store(TileSums<1>& out) const { std::memcpy(out, sums, sizeof(sums)); }
  };
};

}  // namespace

void conv_1x16_portable(const ConvBlock& block) { run_tiles<PlainC, 1>(block, 0); }

}  // namespace modiff
