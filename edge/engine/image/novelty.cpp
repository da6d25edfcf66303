#include "image/novelty.h"

#include <utility>

#include "floats/elementary.h"

namespace modiff {
namespace {

constexpr int kScales = 4;
constexpr size_t kLeastPixels = 4;
constexpr double kVarianceFloor = 1e-5;

struct Plane {
  size_t height;
  size_t width;
  std::vector<double> values;

  bool has_scale() const { return height * width >= kLeastPixels; }
};

double mean_of(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) {
    sum += value;
  }
  return sum / static_cast<double>(values.size());
}

double log_variance(const std::vector<double>& values) {
  const double mean = mean_of(values);
  double sum = 0.0;
  for (const double value : values) {
    sum += (value - mean) * (value - mean);
  }
  return fixed_log(sum / static_cast<double>(values.size()) + kVarianceFloor);
}

// Means of pairs of rows, then of pairs of columns; a side of one stays.
void halve(Plane* plane) {
  const size_t rows = plane->height > 1 ? plane->height / 2 : 1;
  const size_t columns = plane->width > 1 ? plane->width / 2 : 1;
  const size_t next_row = plane->height > 1 ? plane->width : 0;
  const size_t next_column = plane->width > 1 ? 1 : 0;
  Plane half = {rows, columns, std::vector<double>(rows * columns)};
  for (size_t y = 0; y < rows; ++y) {
    for (size_t x = 0; x < columns; ++x) {
      const double* at = plane->values.data() + 2 * y * next_row + 2 * x * next_column;
      const double left = (at[0] + at[next_row]) * 0.5;
      const double right = (at[next_column] + at[next_row + next_column]) * 0.5;
      half.values[y * columns + x] = (left + right) * 0.5;
    }
  }
  *plane = std::move(half);
}

void append_statistics(Plane plane, std::vector<double>* found) {
  found->push_back(mean_of(plane.values));
  for (int scale = 0; scale < kScales && plane.has_scale(); ++scale) {
    found->push_back(log_variance(plane.values));
    halve(&plane);
  }
}

}  // namespace

size_t novelty_statistics(int channels, int height, int width) {
  auto rows = static_cast<size_t>(height);
  auto columns = static_cast<size_t>(width);
  size_t count = 1;
  for (int scale = 0; scale < kScales && rows * columns >= kLeastPixels; ++scale) {
    ++count;
    rows = rows > 1 ? rows / 2 : 1;
    columns = columns > 1 ? columns / 2 : 1;
  }
  return static_cast<size_t>(channels) * count;
}

float novelty(const NoveltyTable& table, const float* image, int channels, int height, int width) {
  const size_t pixels = static_cast<size_t>(height) * static_cast<size_t>(width);
  std::vector<double> distance;
  for (int c = 0; c < channels; ++c, image += pixels) {
    const Plane plane = {static_cast<size_t>(height), static_cast<size_t>(width), {image, image + pixels}};
    append_statistics(plane, &distance);
  }
  for (size_t i = 0; i < distance.size(); ++i) {
    distance[i] -= static_cast<double>(table.mean[i]);
  }
  double sum = 0.0;
  const float* row = table.whitening.data();
  for (size_t i = 0; i < distance.size(); ++i, row += distance.size()) {
    double along = 0.0;
    for (size_t j = 0; j < distance.size(); ++j) {
      along += static_cast<double>(row[j]) * distance[j];
    }
    sum += along * along;
  }
  return static_cast<float>(sum);
}

}  // namespace modiff
