#include "image/inspection.h"
#include "job/noise.h"
#include "selftest/cases.h"
#include "selftest/stream.h"
#include "state/crc32c.h"

namespace selftest {

void run_noise_case() {
  const uint64_t seed = read_value<uint64_t>();
  std::vector<float> values(read_value<uint64_t>());
  modiff::fill_noise(seed, 0, values.size(), values.data());
  write_values(values);
}

void run_checksum_case() {
  const auto bytes = read_values<uint8_t>(static_cast<int64_t>(read_value<uint64_t>()));
  write_value(modiff::crc32c(bytes.data(), bytes.size()));
}

void run_anomalies_case() {
  const int channels = read_value<int32_t>();
  const int height = read_value<int32_t>();
  const int width = read_value<int32_t>();
  const auto reconstruction = read_values<float>(int64_t{channels} * height * width);
  const auto image = read_values<float>(int64_t{channels} * height * width);
  std::vector<float> map(static_cast<size_t>(height) * static_cast<size_t>(width));
  const float score = modiff::anomaly_map(reconstruction.data(), image.data(), channels, height, width, map.data());
  write_value(score);
  write_values(map);
}

void run_activations_case(const modiff::KernelSet& kernels) {
  const uint64_t rows = read_value<uint64_t>();
  const uint64_t columns = read_value<uint64_t>();
  const auto x = read_values<float>(static_cast<int64_t>(rows * columns));
  std::vector<float> y(x.size());
  kernels.sigmoid(x.data(), x.size(), y.data());
  write_values(y);
  kernels.softmax(x.data(), rows, columns, y.data());
  write_values(y);
}

}  // namespace selftest
