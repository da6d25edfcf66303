#include "image/inspection.h"

#include <algorithm>
#include <cmath>

namespace modiff {
namespace {

constexpr int kReach = 2;
constexpr double kBoxPixels = 25.0;

// Mean over channels of |reconstruction - image| at one pixel.
double difference(const float* reconstruction, const float* image, int channels, size_t plane, size_t pixel) {
  double sum = 0.0;
  for (int c = 0; c < channels; ++c) {
    const size_t place = static_cast<size_t>(c) * plane + pixel;
    sum += std::fabs(static_cast<double>(reconstruction[place]) - static_cast<double>(image[place]));
  }
  return sum / channels;
}

}  // namespace

float anomaly_map(const float* reconstruction, const float* image, int channels, int height, int width, float* map) {
  const size_t plane = static_cast<size_t>(height) * static_cast<size_t>(width);
  float score = 0.0F;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      double sum = 0.0;
      for (int dy = -kReach; dy <= kReach; ++dy) {
        for (int dx = -kReach; dx <= kReach; ++dx) {
          const int row = std::min(std::max(y + dy, 0), height - 1);
          const int column = std::min(std::max(x + dx, 0), width - 1);
          const size_t pixel = static_cast<size_t>(row) * static_cast<size_t>(width) + static_cast<size_t>(column);
          sum += difference(reconstruction, image, channels, plane, pixel);
        }
      }
      const float mean = static_cast<float>(sum / kBoxPixels);
      map[static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x)] = mean;
      score = std::max(score, mean);
    }
  }
  return score;
}

}  // namespace modiff
