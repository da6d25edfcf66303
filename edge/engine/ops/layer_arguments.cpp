#include "ops/layer_arguments.h"

#include <cmath>

namespace modiff {
namespace {

// The arguments that both operators begin with (edge/calls.py, Modulated), in the schema's order.
struct Common {
  const Tensor* x;
  const Tensor* skip;
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
  bool direct;
  PrologueArguments prologue;
  const Tensor* shift;
  int64_t out_activation;
  const Tensor* gate;
  const Tensor* add;
};

Common read_common(ArgumentReader& reader) {
  Common common = {};
  common.x = reader.tensor(ScalarType::Float);
  common.skip = reader.optional_tensor(ScalarType::Float);
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
  common.direct = reader.flag();
  common.prologue = read_prologue(reader);
  common.shift = reader.optional_tensor(ScalarType::Float);
  common.out_activation = reader.integer();
  common.gate = reader.optional_tensor(ScalarType::Float);
  common.add = reader.optional_tensor(ScalarType::Float);
  return common;
}

LayerCall refusal(const char* problem, int argument = -1) {
  LayerCall call = {};
  call.problem = problem;
  call.argument = argument;
  return call;
}

const char* find_state_problem(const Common& c, const Layer& layer) {
  const int64_t planes = c.scale->size(0);
  const Geometry& g = layer.geometry;
  if (planes < 1 || planes > kMaxPlanes || c.scale->size(1) != g.out_channels || c.bias->numel() != g.out_channels) {
    return "scale or bias has the wrong shape";
  }
  if (c.weight->numel() != g.packed_weight_bytes() ||
      (planes > 1 && c.residual_weight->numel() != g.packed_weight_bytes())) {
    return "the packed weights have the wrong length";
  }
  const bool has_state = c.lattice->numel() == planes * layer.lattice_elements() &&
                         c.accumulator->numel() == planes * g.output_elements();
  if (!c.direct && !has_state) {
    return "lattice or accumulator has the wrong size";
  }
  return c.history->numel() == 1 || c.history->numel() == g.output_elements() ? nullptr : "history has the wrong size";
}

// What holds for both operators once the geometry is known; nullptr when all of it does.
const char* find_problem(const Common& c, const Layer& layer, const Tensor& out) {
  const Geometry& g = layer.geometry;
  if (!is_sound(g) || !is_sound(layer.prologue)) {
    return "the sizes do not belong to one operator";
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
  if (c.out_activation < 0 || c.out_activation >= kActivations) {
    return "unknown activation";
  }
  if (out.numel() != g.output_elements() || (c.add != nullptr && c.add->numel() != g.output_elements())) {
    return "out or add has the wrong size";
  }
  return find_state_problem(c, layer);
}

// Where the per-image vectors of the epilogue do not fit.
const char* bind_epilogue(const Common& c, Layer* layer) {
  const int64_t images = layer->geometry.batch;
  const int64_t channels = layer->geometry.out_channels;
  if (!bind_vector(c.shift, images, channels, &layer->shift) || !bind_vector(c.gate, images, channels, &layer->gate)) {
    return "shift or gate must be [N or 1, OC]";
  }
  layer->out_activation = static_cast<Activation>(c.out_activation);
  layer->add = c.add == nullptr ? nullptr : c.add->const_data_ptr<float>();
  return nullptr;
}

// `layer` has its geometry and upsampling.
LayerCall build(const Common& c, const Layer& like, const Tensor& out) {
  LayerCall call = {};
  Layer& layer = call.layer;
  layer = like;
  const Geometry& g = layer.geometry;
  const PrologueShape shape = {g.batch, g.height * g.width / (layer.upsample * layer.upsample)};
  const char* problem = bind_prologue(c.x, c.skip, c.prologue, shape, &layer.prologue);
  problem = problem == nullptr ? find_problem(c, layer, out) : problem;
  problem = problem == nullptr ? bind_epilogue(c, &layer) : problem;
  if (problem != nullptr) {
    return refusal(problem);
  }
  call.step = c.step->const_data_ptr<int64_t>()[0];
  layer.output = out.mutable_data_ptr<float>();
  layer.lattice = c.lattice->mutable_data_ptr<int16_t>();
  layer.accumulator = c.accumulator->mutable_data_ptr<int32_t>();
  // A history of one element is the schema's way to say "none"; an operator with one output keeps one all the same.
  const bool keeps_history = !c.direct && c.history->numel() == g.output_elements();
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
  layer.direct = c.direct;
  return call;
}

int64_t last_size(const Tensor& tensor) { return tensor.dim() > 0 ? tensor.size(tensor.dim() - 1) : 0; }

// Whether something of a linear call differs from image to image; else its positions are one row.
bool knows_images(const Common& c) {
  bool per_image = c.prologue.norm == static_cast<int64_t>(Norm::kGroup);
  for (const Tensor* vector : {c.prologue.weight, c.prologue.bias, c.shift, c.gate}) {
    per_image = per_image || (vector != nullptr && vector->dim() == 2 && vector->size(0) > 1);
  }
  return per_image;
}

}  // namespace

LayerCall read_conv2d(Stack stack) {
  ArgumentReader reader(stack);
  const Common common = read_common(reader);
  Layer layer;
  Geometry& g = layer.geometry;
  layer.upsample = reader.integer();
  reader.pair(&g.kernel_height, &g.kernel_width);
  reader.pair(&g.stride_height, &g.stride_width);
  reader.pair(&g.padding_height, &g.padding_width);
  reader.pair(&g.dilation_height, &g.dilation_width);
  g.groups = reader.integer();
  g.transposed = reader.flag();
  reader.pair(&g.out_height, &g.out_width);
  const Tensor* out = reader.tensor(ScalarType::Float);
  if (!reader.ok()) {
    return refusal("an argument is missing or of the wrong type", reader.failed_at());
  }
  if (common.x->dim() != 4 || common.scale->dim() != 2 || layer.upsample < 1 || layer.upsample > 2) {
    return refusal("x must be [N, H, W, C], scale [planes, OC] and upsample 1 or 2");
  }
  g.batch = common.x->size(0);
  g.height = common.x->size(1) * layer.upsample;
  g.width = common.x->size(2) * layer.upsample;
  g.channels = last_size(*common.x) + (common.skip == nullptr ? 0 : last_size(*common.skip));
  g.out_channels = common.scale->size(1);
  return build(common, layer, *out);
}

LayerCall read_linear(Stack stack) {
  ArgumentReader reader(stack);
  const Common common = read_common(reader);
  const Tensor* out = reader.tensor(ScalarType::Float);
  if (!reader.ok()) {
    return refusal("an argument is missing or of the wrong type", reader.failed_at());
  }
  if (last_size(*common.x) < 1 || common.scale->dim() != 2) {
    return refusal("x must be [..., C] and scale [planes, OC]");
  }
  Layer layer;
  Geometry& g = layer.geometry;
  g.channels = last_size(*common.x) + (common.skip == nullptr ? 0 : last_size(*common.skip));
  g.batch = common.x->dim() > 1 && knows_images(common) ? common.x->size(0) : 1;
  fold_positions(common.x->numel() / last_size(*common.x) / g.batch, &g);
  g.out_channels = common.scale->size(1);
  return build(common, layer, *out);
}

}  // namespace modiff
