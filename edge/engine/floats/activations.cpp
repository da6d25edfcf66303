#include "floats/activations.h"

#include "floats/exponential.h"

namespace modiff {
namespace {

// Partial results side by side: a fixed order of operations that maps to any vector width up to eight.
constexpr size_t kLanes = 8;

float row_maximum(const float* x, size_t columns) {
  float lanes[kLanes];
  for (float& lane : lanes) {
    lane = x[0];
  }
  size_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
    }
  }
  for (; i < columns; ++i) {
    lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
  }
  float most = lanes[0];
  for (const float lane : lanes) {
    most = lane > most ? lane : most;
  }
  return most;
}

float row_sum(const float* x, size_t columns) {
  float lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = lanes[lane] + x[i + lane];
    }
  }
  for (; i < columns; ++i) {
    lanes[0] = lanes[0] + x[i];
  }
  const float low = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  const float high = (lanes[4] + lanes[5]) + (lanes[6] + lanes[7]);
  return low + high;
}

}  // namespace

void sigmoid(const float* x, size_t count, float* out) {
  for (size_t i = 0; i < count; ++i) {
    out[i] = 1.0F / (1.0F + exp_float(-x[i]));
  }
}

void softmax_rows(const float* x, size_t rows, size_t columns, float* out) {
  for (size_t row = 0; row < rows; ++row, x += columns, out += columns) {
    const float most = row_maximum(x, columns);
    for (size_t i = 0; i < columns; ++i) {
      out[i] = exp_float(x[i] - most);
    }
    const float sum = row_sum(out, columns);
    for (size_t i = 0; i < columns; ++i) {
      out[i] = out[i] / sum;
    }
  }
}

}  // namespace modiff
