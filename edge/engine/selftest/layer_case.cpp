#include "modulated/layer.h"
#include "selftest/cases.h"
#include "selftest/stream.h"

namespace selftest {
namespace {

struct LayerHeader {
  int64_t batch, channels, height, width, out_channels, out_height, out_width;
  int64_t kernel_height, kernel_width, stride_height, stride_width, padding_height, padding_width;
  int64_t dilation_height, dilation_width, groups, transposed;
  int64_t planes, lattice_bits, direct, keeps_history, steps, runs, threads;
  int64_t upsample, skip_channels, norm, norm_groups, weight_rows, bias_rows, activation;
  int64_t shift_rows, out_activation, gate_rows, has_add;
  double inverse_step;
  double norm_eps;
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

// What a case brings beside its runs, in the order of the stream.
struct LayerData {
  explicit LayerData(const LayerHeader& h, const modiff::Geometry& g)
      : weights(read_values<int8_t>(h.planes * g.packed_weight_bytes())),
        scale(read_values<float>(h.planes * h.out_channels)),
        bias(read_values<float>(h.out_channels)),
        table(read_values<int8_t>((h.steps + 1) * modiff::kPlanColumns)),
        norm_weight(read_values<float>(h.weight_rows * h.channels)),
        norm_bias(read_values<float>(h.bias_rows * h.channels)),
        shift(read_values<float>(h.shift_rows * h.out_channels)),
        gate(read_values<float>(h.gate_rows * h.out_channels)) {}

  const std::vector<int8_t> weights;
  const std::vector<float> scale;
  const std::vector<float> bias;
  const std::vector<int8_t> table;
  const std::vector<float> norm_weight;
  const std::vector<float> norm_bias;
  const std::vector<float> shift;
  const std::vector<float> gate;
};

modiff::Layer layer_of(const LayerHeader& h, const modiff::Geometry& g, const LayerData& data) {
  modiff::Layer layer = {};
  layer.geometry = g;
  layer.upsample = h.upsample;
  modiff::Prologue& p = layer.prologue;
  p.images = h.batch;
  p.positions = h.height * h.width / (h.upsample * h.upsample);
  p.x_channels = h.channels - h.skip_channels;
  p.skip_channels = h.skip_channels;
  p.norm = static_cast<modiff::Norm>(h.norm);
  p.groups = h.norm_groups;
  p.eps = static_cast<float>(h.norm_eps);
  p.weight = vector_of(data.norm_weight, h.weight_rows);
  p.bias = vector_of(data.norm_bias, h.bias_rows);
  p.activation = static_cast<modiff::Activation>(h.activation);
  layer.shift = vector_of(data.shift, h.shift_rows);
  layer.out_activation = static_cast<modiff::Activation>(h.out_activation);
  layer.gate = vector_of(data.gate, h.gate_rows);
  layer.weight[0] = data.weights.data();
  layer.weight[1] = h.planes > 1 ? data.weights.data() + g.packed_weight_bytes() : nullptr;
  layer.scale = data.scale.data();
  layer.bias = data.bias.data();
  layer.table = data.table.data();
  layer.steps = h.steps;
  layer.planes = static_cast<int>(h.planes);
  layer.inverse_step = static_cast<float>(h.inverse_step);
  layer.lattice_bits = static_cast<int>(h.lattice_bits);
  layer.direct = h.direct != 0;
  return layer;
}

}  // namespace

void run_layer_case(const modiff::KernelSet& kernels) {
  const LayerHeader h = read_value<LayerHeader>();
  const modiff::Geometry g = geometry_of(h);
  if (!modiff::is_sound(g)) {
    quit("a layer's sizes do not belong together");
  }
  const LayerData data(h, g);
  modiff::Layer layer = layer_of(h, g, data);
  const int64_t inputs = layer.lattice_elements();
  std::vector<int16_t> lattice(h.direct != 0 ? 0 : static_cast<size_t>(h.planes * inputs));
  std::vector<int32_t> accumulator(h.direct != 0 ? 0 : static_cast<size_t>(h.planes * g.output_elements()));
  std::vector<float> history(h.keeps_history != 0 ? static_cast<size_t>(g.output_elements()) : 0);
  std::vector<int32_t> counters(modiff::kCounters);
  std::vector<float> output(static_cast<size_t>(g.output_elements()));
  layer.output = output.data();
  layer.lattice = lattice.data();
  layer.accumulator = accumulator.data();
  layer.history = h.keeps_history != 0 ? history.data() : nullptr;
  layer.counters = counters.data();
  Threads threads(static_cast<int>(h.threads));
  modiff::Serial serial;
  modiff::Parallel& parallel = h.threads > 1 ? static_cast<modiff::Parallel&>(threads) : serial;
  for (int64_t run = 0; run < h.runs; ++run) {
    const int64_t step = read_value<int64_t>();
    const auto x = read_values<float>(inputs / h.channels * layer.prologue.x_channels);
    const auto skip = read_values<float>(inputs / h.channels * h.skip_channels);
    const auto add = read_values<float>(h.has_add != 0 ? g.output_elements() : 0);
    layer.prologue.x = x.data();
    layer.prologue.skip = h.skip_channels > 0 ? skip.data() : nullptr;
    layer.add = h.has_add != 0 ? add.data() : nullptr;
    if (!modiff::is_sound(layer.prologue)) {
      quit("a layer's prologue does not fit it");
    }
    HeapScratch scratch;
    modiff::StepStatistics statistics;
    const auto status = modiff::run_layer(layer, step, kernels, parallel, scratch, &statistics);
    write_value(static_cast<uint32_t>(status));
    write_value(statistics);
    write_values(output);
  }
  write_values(lattice);
  write_values(accumulator);
  write_values(history);
  write_values(counters);
}

}  // namespace selftest
