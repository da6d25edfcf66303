// modiff-selftest ISA: runs cases from stdin through the kernels and writes what came out to stdout.
//
// Built only for the tests, which compare with calib's reference. Many cases go through one process, because a
// process under emulation is slow to start. All values are little-endian. A case is a u32 kind, then:
//   1 layer: LayerHeader, weights per plane, scale, bias, table, then per run an int64 step and x. Answered per run by
//     u32 status, four u64 statistics and the output; at the end by lattice, accumulator, history and counters.
//   2 noise: u64 seed, u64 count. Answered by floats.
//   3 CRC-32C: u64 count, bytes. Answered by u32.
//   4 anomaly map: int32 channels, height, width, reconstruction, image. Answered by the score and the map.
//   5 activations: u64 rows, u64 columns, x. Answered by the sigmoid, then the softmax of the rows.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "floats/activations.h"
#include "job/inspection.h"
#include "job/noise.h"
#include "kernels/kernel_set.h"
#include "modulated/layer.h"
#include "state/crc32c.h"

namespace {

enum Kind : uint32_t { kLayer = 1, kNoise = 2, kChecksum = 3, kAnomalies = 4, kActivations = 5 };

struct LayerHeader {
  int64_t channels_first;
  int64_t batch, channels, height, width, out_channels, out_height, out_width;
  int64_t kernel_height, kernel_width, stride_height, stride_width, padding_height, padding_width;
  int64_t dilation_height, dilation_width, groups, transposed;
  int64_t planes, lattice_bits, direct, keeps_history, steps, runs;
  double inverse_step;
};

[[noreturn]] void quit(const char* why) {
  std::fprintf(stderr, "modiff-selftest: %s\n", why);
  std::exit(1);
}

void read_bytes(void* data, size_t bytes) {
  if (bytes > 0 && std::fread(data, 1, bytes, stdin) != bytes) {
    quit("the input ends inside a case");
  }
}

template <typename T>
T read_value() {
  T value = {};
  read_bytes(&value, sizeof(value));
  return value;
}

template <typename T>
std::vector<T> read_values(int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  read_bytes(values.data(), values.size() * sizeof(T));
  return values;
}

template <typename T>
void write_values(const std::vector<T>& values) {
  if (!values.empty()) {
    std::fwrite(values.data(), sizeof(T), values.size(), stdout);
  }
}

template <typename T>
void write_value(T value) {
  std::fwrite(&value, sizeof(value), 1, stdout);
}

// Each allocation stands alone, so that a sanitizer sees its ends.
class HeapScratch final : public modiff::Scratch {
 public:
  ~HeapScratch() override {
    for (void* block : blocks_) {
      std::free(block);
    }
  }

  void* allocate_bytes(size_t bytes) override {
    blocks_.push_back(std::malloc(bytes));
    return blocks_.back();
  }

 private:
  std::vector<void*> blocks_;
};

modiff::Geometry geometry_of(const LayerHeader& h) {
  modiff::Geometry g;
  g.batch = h.batch;
  g.channels = h.channels;
  g.height = h.height;
  g.width = h.width;
  g.out_channels = h.out_channels;
  g.out_height = h.out_height;
  g.out_width = h.out_width;
  g.kernel_height = h.kernel_height;
  g.kernel_width = h.kernel_width;
  g.stride_height = h.stride_height;
  g.stride_width = h.stride_width;
  g.padding_height = h.padding_height;
  g.padding_width = h.padding_width;
  g.dilation_height = h.dilation_height;
  g.dilation_width = h.dilation_width;
  g.groups = h.groups;
  g.transposed = h.transposed != 0;
  return g;
}

void run_layer_case(const modiff::KernelSet& kernels) {
  const LayerHeader h = read_value<LayerHeader>();
  const modiff::Geometry g = geometry_of(h);
  if (!modiff::is_sound(g)) {
    quit("a layer's sizes do not belong together");
  }
  const auto weights = read_values<int8_t>(h.planes * g.packed_weight_bytes());
  const auto scale = read_values<float>(h.planes * h.out_channels);
  const auto bias = read_values<float>(h.out_channels);
  const auto table = read_values<int8_t>((h.steps + 1) * modiff::kPlanColumns);
  std::vector<int16_t> lattice(h.direct != 0 ? 0 : static_cast<size_t>(h.planes * g.input_elements()));
  std::vector<int32_t> accumulator(h.direct != 0 ? 0 : static_cast<size_t>(h.planes * g.output_elements()));
  std::vector<float> history(h.keeps_history != 0 ? static_cast<size_t>(g.output_elements()) : 0);
  std::vector<int32_t> counters(modiff::kCounters);
  std::vector<float> output(static_cast<size_t>(g.output_elements()));
  modiff::Layer layer = {};
  layer.geometry = g;
  layer.output = output.data();
  layer.lattice = lattice.data();
  layer.accumulator = accumulator.data();
  layer.history = h.keeps_history != 0 ? history.data() : nullptr;
  layer.counters = counters.data();
  layer.weight[0] = weights.data();
  layer.weight[1] = h.planes > 1 ? weights.data() + g.packed_weight_bytes() : nullptr;
  layer.scale = scale.data();
  layer.bias = bias.data();
  layer.table = table.data();
  layer.steps = h.steps;
  layer.planes = static_cast<int>(h.planes);
  layer.inverse_step = static_cast<float>(h.inverse_step);
  layer.lattice_bits = static_cast<int>(h.lattice_bits);
  layer.direct = h.direct != 0;
  for (int64_t run = 0; run < h.runs; ++run) {
    const int64_t step = read_value<int64_t>();
    const auto x = read_values<float>(g.input_elements());
    layer.input = {x.data(), h.channels_first != 0};
    HeapScratch scratch;
    modiff::StepStatistics statistics;
    const auto status = modiff::run_layer(layer, step, kernels, scratch, &statistics);
    write_value(static_cast<uint32_t>(status));
    write_value(statistics);
    write_values(output);
  }
  write_values(lattice);
  write_values(accumulator);
  write_values(history);
  write_values(counters);
}

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

void run_activations_case() {
  const uint64_t rows = read_value<uint64_t>();
  const uint64_t columns = read_value<uint64_t>();
  const auto x = read_values<float>(static_cast<int64_t>(rows * columns));
  std::vector<float> y(x.size());
  modiff::sigmoid(x.data(), x.size(), y.data());
  write_values(y);
  modiff::softmax_rows(x.data(), rows, columns, y.data());
  write_values(y);
}

}  // namespace

int main(int count, char** arguments) {
  const modiff::KernelSet* kernels = count == 2 ? modiff::find_kernels(arguments[1]) : nullptr;
  if (kernels == nullptr) {
    quit("usage: modiff-selftest ISA, with an ISA that this CPU has");
  }
  uint32_t kind = 0;
  while (std::fread(&kind, sizeof(kind), 1, stdin) == 1) {
    switch (kind) {
      case kLayer:
        run_layer_case(*kernels);
        break;
      case kNoise:
        run_noise_case();
        break;
      case kChecksum:
        run_checksum_case();
        break;
      case kAnomalies:
        run_anomalies_case();
        break;
      case kActivations:
        run_activations_case();
        break;
      default:
        quit("unknown kind of case");
    }
  }
  return 0;
}
