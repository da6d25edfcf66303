#include "ops/layer_arguments.h"

#include <cmath>

namespace modiff {
namespace {

// The arguments that both operators begin with, in the schema's order.
struct Common {
  const Tensor* x;
  const Tensor* step;
  const Tensor* lattice;
  const Tensor* accumulator;
  const Tensor* history;
  const Tensor* counters;
  const Tensor* weight;
  const Tensor* residual_weight;
  const Tensor* scale;
  const Tensor* bias;
  const Tensor* table;
  double inverse_step;
  int64_t lattice_bits;
};

Common read_common(ArgumentReader& reader) {
  Common common = {};
  common.x = reader.tensor(ScalarType::Float);
  common.step = reader.tensor(ScalarType::Long);
  common.lattice = reader.tensor(ScalarType::Short);
  common.accumulator = reader.tensor(ScalarType::Int);
  common.history = reader.tensor(ScalarType::Float);
  common.counters = reader.tensor(ScalarType::Int);
  common.weight = reader.tensor(ScalarType::Char);
  common.residual_weight = reader.tensor(ScalarType::Char);
  common.scale = reader.tensor(ScalarType::Float);
  common.bias = reader.tensor(ScalarType::Float);
  common.table = reader.tensor(ScalarType::Char);
  common.inverse_step = reader.number();
  common.lattice_bits = reader.integer();
  return common;
}

LayerCall refusal(const char* problem, int argument = -1) {
  LayerCall call = {};
  call.problem = problem;
  call.argument = argument;
  return call;
}

// What holds for both operators once the geometry is known; nullptr when all of it does.
const char* find_problem(const Common& c, const Geometry& g, bool direct, const Tensor& out) {
  if (!is_sound(g)) {
    return "the sizes do not belong to one operator";
  }
  const int64_t planes = c.scale->size(0);
  if (planes < 1 || planes > kMaxPlanes || c.scale->size(1) != g.out_channels || c.bias->numel() != g.out_channels) {
    return "scale or bias has the wrong shape";
  }
  if (c.table->dim() != 2 || c.table->size(1) != kPlanColumns || c.table->size(0) < 2) {
    return "the plan table has the wrong shape";
  }
  if (c.step->numel() != 1 || c.counters->numel() != kCounters) {
    return "step or counters has the wrong shape";
  }
  if (c.lattice_bits < 2 || c.lattice_bits > 16 || !(c.inverse_step > 0.0) || !std::isfinite(c.inverse_step)) {
    return "lattice_bits or inverse_step is out of range";
  }
  if (c.weight->numel() != g.packed_weight_bytes() ||
      (planes > 1 && c.residual_weight->numel() != g.packed_weight_bytes())) {
    return "the packed weights have the wrong length";
  }
  const bool has_state =
      c.lattice->numel() == planes * g.input_elements() && c.accumulator->numel() == planes * g.output_elements();
  if (!direct && !has_state) {
    return "lattice or accumulator has the wrong size";
  }
  if (c.history->numel() != 1 && c.history->numel() != g.output_elements()) {
    return "history has the wrong size";
  }
  return c.x->numel() == g.input_elements() && out.numel() == g.output_elements() ? nullptr
                                                                                  : "x or out has the wrong size";
}

LayerCall build(const Common& c, const Geometry& g, bool channels_first, bool direct, const Tensor& out) {
  const char* problem = find_problem(c, g, direct, out);
  if (problem != nullptr) {
    return refusal(problem);
  }
  LayerCall call = {};
  call.step = c.step->const_data_ptr<int64_t>()[0];
  Layer& layer = call.layer;
  layer.geometry = g;
  layer.input = {c.x->const_data_ptr<float>(), channels_first};
  layer.output = out.mutable_data_ptr<float>();
  layer.lattice = c.lattice->mutable_data_ptr<int16_t>();
  layer.accumulator = c.accumulator->mutable_data_ptr<int32_t>();
  // A history of one element is the schema's way to say "none"; an operator with one output keeps one all the same.
  const bool keeps_history = !direct && c.history->numel() == g.output_elements();
  layer.history = keeps_history ? c.history->mutable_data_ptr<float>() : nullptr;
  layer.counters = c.counters->mutable_data_ptr<int32_t>();
  layer.weight[0] = c.weight->const_data_ptr<int8_t>();
  layer.weight[1] = c.residual_weight->const_data_ptr<int8_t>();
  layer.scale = c.scale->const_data_ptr<float>();
  layer.bias = c.bias->const_data_ptr<float>();
  layer.table = c.table->const_data_ptr<int8_t>();
  layer.steps = c.table->size(0) - 1;
  layer.planes = static_cast<int>(c.scale->size(0));
  layer.inverse_step = static_cast<float>(c.inverse_step);
  layer.lattice_bits = static_cast<int>(c.lattice_bits);
  layer.direct = direct;
  return call;
}

}  // namespace

LayerCall read_conv2d(Stack stack) {
  ArgumentReader reader(stack);
  const Common common = read_common(reader);
  Geometry g;
  reader.pair(&g.kernel_height, &g.kernel_width);
  reader.pair(&g.stride_height, &g.stride_width);
  reader.pair(&g.padding_height, &g.padding_width);
  reader.pair(&g.dilation_height, &g.dilation_width);
  g.groups = reader.integer();
  g.transposed = reader.flag();
  const bool direct = reader.flag();
  reader.pair(&g.out_height, &g.out_width);
  const Tensor* out = reader.tensor(ScalarType::Float);
  if (!reader.ok()) {
    return refusal("an argument is missing or of the wrong type", reader.failed_at());
  }
  if (common.x->dim() != 4 || common.scale->dim() != 2) {
    return refusal("x must be [N, C, H, W] and scale [planes, OC]");
  }
  g.batch = common.x->size(0);
  g.channels = common.x->size(1);
  g.height = common.x->size(2);
  g.width = common.x->size(3);
  g.out_channels = common.scale->size(1);
  return build(common, g, true, direct, *out);
}

LayerCall read_linear(Stack stack) {
  ArgumentReader reader(stack);
  const Common common = read_common(reader);
  const bool direct = reader.flag();
  const Tensor* out = reader.tensor(ScalarType::Float);
  if (!reader.ok()) {
    return refusal("an argument is missing or of the wrong type", reader.failed_at());
  }
  const auto dimensions = common.x->dim();
  if (dimensions < 1 || common.scale->dim() != 2 || common.x->size(dimensions - 1) < 1) {
    return refusal("x must be [..., C] and scale [planes, OC]");
  }
  Geometry g;
  g.channels = common.x->size(dimensions - 1);
  g.width = common.x->numel() / g.channels;
  g.out_width = g.width;
  g.out_channels = common.scale->size(1);
  return build(common, g, false, direct, *out);
}

}  // namespace modiff
