#include "ops/legacy_operators.h"

#include "modulated/layer.h"
#include "ops/arguments.h"
#include "ops/process.h"
#include "ops/thread_pool.h"

namespace modiff {
namespace {

using executorch::runtime::Error;
using executorch::runtime::Kernel;
using executorch::runtime::KernelRuntimeContext;
using executorch::runtime::Span;

// out[b][c][r] = in[b][r][c]
void turn(const float* in, int64_t batch, int64_t rows, int64_t columns, float* out) {
  for (int64_t b = 0; b < batch; ++b, in += rows * columns, out += rows * columns) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        out[c * rows + r] = in[r * columns + c];
      }
    }
  }
}

void run_legacy(KernelRuntimeContext& context, Stack stack, bool conv) {
  ArgumentReader reader(stack);
  Layer layer;
  const Tensor* x = reader.tensor(ScalarType::Float);
  const Tensor* step = reader.tensor(ScalarType::Long);
  const Tensor* lattice = reader.tensor(ScalarType::Short);
  const Tensor* accumulator = reader.tensor(ScalarType::Int);
  const Tensor* history = reader.tensor(ScalarType::Float);
  const Tensor* counters = reader.tensor(ScalarType::Int);
  const Tensor* weight = reader.tensor(ScalarType::Char);
  const Tensor* residual_weight = reader.tensor(ScalarType::Char);
  const Tensor* scale = reader.tensor(ScalarType::Float);
  const Tensor* bias = reader.tensor(ScalarType::Float);
  const Tensor* table = reader.tensor(ScalarType::Char);
  layer.inverse_step = static_cast<float>(reader.number());
  layer.lattice_bits = static_cast<int>(reader.integer());
  Geometry& g = layer.geometry;
  if (conv) {
    reader.pair(&g.kernel_height, &g.kernel_width);
    reader.pair(&g.stride_height, &g.stride_width);
    reader.pair(&g.padding_height, &g.padding_width);
    reader.pair(&g.dilation_height, &g.dilation_width);
    g.groups = reader.integer();
    g.transposed = reader.flag();
  }
  layer.direct = reader.flag();
  if (conv) {
    reader.pair(&g.out_height, &g.out_width);
  }
  const Tensor* out = reader.tensor(ScalarType::Float);
  if (!reader.ok()) {
    return context.fail(Error::InvalidArgument);
  }
  g.out_channels = scale->size(1);
  if (conv) {
    g.batch = x->size(0);
    g.channels = x->size(1);
    g.height = x->size(2);
    g.width = x->size(3);
  } else {
    g.channels = x->size(x->dim() - 1);
    fold_positions(x->numel() / g.channels, &g);
  }
  ContextScratch scratch(context);
  float* input = scratch.allocate<float>(static_cast<size_t>(g.input_elements()));
  float* output = scratch.allocate<float>(static_cast<size_t>(g.output_elements()));
  if (!is_sound(g) || input == nullptr || output == nullptr) {
    return context.fail(Error::InvalidArgument);
  }
  const float* values = x->const_data_ptr<float>();
  if (conv) {
    turn(values, g.batch, g.channels, g.height * g.width, input);
  }
  layer.prologue.x = conv ? input : values;
  layer.prologue.images = g.batch;
  layer.prologue.positions = g.height * g.width;
  layer.prologue.x_channels = g.channels;
  layer.output = conv ? output : out->mutable_data_ptr<float>();
  layer.lattice = lattice->mutable_data_ptr<int16_t>();
  layer.accumulator = accumulator->mutable_data_ptr<int32_t>();
  const bool keeps_history = !layer.direct && history->numel() == g.output_elements();
  layer.history = keeps_history ? history->mutable_data_ptr<float>() : nullptr;
  layer.counters = counters->mutable_data_ptr<int32_t>();
  layer.weight[0] = weight->const_data_ptr<int8_t>();
  layer.weight[1] = residual_weight->const_data_ptr<int8_t>();
  layer.scale = scale->const_data_ptr<float>();
  layer.bias = bias->const_data_ptr<float>();
  layer.table = table->const_data_ptr<int8_t>();
  layer.steps = table->size(0) - 1;
  layer.planes = static_cast<int>(scale->size(0));
  const LayerStatus status = run_layer(layer, step->const_data_ptr<int64_t>()[0], active_kernels(), thread_pool(),
                                       scratch, &step_statistics());
  if (status != LayerStatus::kOk) {
    return context.fail(status == LayerStatus::kBadPlan ? Error::InvalidArgument : Error::MemoryAllocationFailed);
  }
  if (conv) {
    turn(output, g.batch, g.out_height * g.out_width, g.out_channels, out->mutable_data_ptr<float>());
  }
}

void conv2d_out(KernelRuntimeContext& context, Stack stack) { run_legacy(context, stack, true); }

void linear_out(KernelRuntimeContext& context, Stack stack) { run_legacy(context, stack, false); }

}  // namespace

Span<const Kernel> legacy_operators() {
  static const Kernel kernels[] = {Kernel("modiff1::conv2d.out", conv2d_out), Kernel("modiff1::linear.out", linear_out)};
  return {kernels, sizeof(kernels) / sizeof(kernels[0])};
}

}  // namespace modiff
