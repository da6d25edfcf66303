// How unlike an inspected image is to what calibration saw (calib/novelty.py is the reference and says what it means).
#pragma once

#include <cstddef>
#include <vector>

namespace modiff {

// The statistics of the reference images: mean [F], whitening [F, F]. Empty where a program has none.
struct NoveltyTable {
  std::vector<float> mean;
  std::vector<float> whitening;

  bool known() const { return !mean.empty(); }
};

// How many statistics an image of this shape has.
size_t novelty_statistics(int channels, int height, int width);

// Of an image [channels, height, width]: at least 0, above 1 where it is unlike the references. The order of operations
// is fixed: every machine gives the same bits.
float novelty(const NoveltyTable& table, const float* image, int channels, int height, int width);

}  // namespace modiff
