#include "ops/feature_operators.h"

#include <executorch/runtime/platform/log.h>

#include "modulated/features.h"
#include "modulated/geometry.h"
#include "modulated/refreshes.h"
#include "ops/process.h"
#include "ops/prologue_arguments.h"
#include "ops/thread_pool.h"

namespace modiff {
namespace {

using executorch::runtime::Error;
using executorch::runtime::Kernel;
using executorch::runtime::KernelRuntimeContext;
using executorch::runtime::Span;

void refuse(KernelRuntimeContext& context, const char* name, const char* problem, const ArgumentReader& reader) {
  ET_LOG(Error, "%s: %s (argument %d)", name, problem, reader.failed_at());
  context.fail(Error::InvalidArgument);
}

constexpr char kUnreadable[] = "an argument is missing or of the wrong type";

// Step and table of what happens at it.
struct StepTable {
  const Tensor* step;
  const Tensor* table;
};

StepTable read_steps(ArgumentReader& reader) {
  const Tensor* step = reader.tensor(ScalarType::Long);
  return {step, reader.tensor(ScalarType::Char)};
}

// The table's entry at the step, -1 where there is none.
int entry(const StepTable& steps) {
  if (steps.step->numel() != 1) {
    return -1;
  }
  const int64_t step = steps.step->const_data_ptr<int64_t>()[0];
  return step >= 0 && step < steps.table->numel() ? steps.table->const_data_ptr<int8_t>()[step] : -1;
}

constexpr char kNoSuchStep[] = "the step is not in the table";

int64_t channels_of(const Tensor& x) { return x.dim() > 0 ? x.size(x.dim() - 1) : 0; }

// The first dimension of a tensor that has several before its channels.
int64_t images_of(const Tensor& x) { return x.dim() > 1 ? x.size(0) : 1; }

// Positions of a task, where they form no image.
int64_t row_width(int64_t positions) {
  Geometry geometry;
  fold_positions(positions, &geometry);
  return geometry.width;
}

void normalize_out(KernelRuntimeContext& context, Stack stack) {
  constexpr char kName[] = "modiff::normalize.out";
  ArgumentReader reader(stack);
  const Tensor* x = reader.tensor(ScalarType::Float);
  const Tensor* skip = reader.optional_tensor(ScalarType::Float);
  const StepTable steps = read_steps(reader);
  const PrologueArguments arguments = read_prologue(reader);
  const int64_t upsample = reader.integer();
  const Tensor* out = reader.tensor(ScalarType::Float);
  if (!reader.ok()) {
    return refuse(context, kName, kUnreadable, reader);
  }
  const bool is_image = x->dim() == 4;
  if (channels_of(*x) < 1 || x->numel() < 1 || upsample < 1 || upsample > 2 || (upsample > 1 && !is_image)) {
    return refuse(context, kName, "x must be [..., C], or [N, H, W, C] with upsample 1 or 2", reader);
  }
  Prologue prologue;
  const int64_t images = images_of(*x);
  const int64_t positions = x->numel() / channels_of(*x) / images;
  const char* problem = bind_prologue(x, skip, arguments, {images, positions}, &prologue);
  if (problem == nullptr && out->numel() != images * positions * prologue.channels() * upsample * upsample) {
    problem = "out has the wrong size";
  }
  const int active = problem == nullptr ? entry(steps) : 0;
  problem = active < 0 ? kNoSuchStep : problem;
  if (problem != nullptr) {
    return refuse(context, kName, problem, reader);
  }
  const int64_t width = is_image ? x->size(2) : row_width(positions);
  ContextScratch scratch(context);
  if (active != 0 && !normalize(prologue, width, upsample, active_kernels(), thread_pool(), scratch,
                                out->mutable_data_ptr<float>())) {
    context.fail(Error::MemoryAllocationFailed);
  }
}

bool fit_attention(const Tensor& q, const Tensor& k, const Tensor& v, int64_t heads, const Tensor& out) {
  return q.dim() == 3 && k.dim() == 3 && q.numel() > 0 && k.numel() > 0 && k.numel() == v.numel() &&
         q.size(0) == k.size(0) && q.size(2) == k.size(2) && heads > 0 && q.size(2) % heads == 0 &&
         out.numel() == q.numel();
}

void attention_out(KernelRuntimeContext& context, Stack stack) {
  constexpr char kName[] = "modiff::attention.out";
  ArgumentReader reader(stack);
  const Tensor* q = reader.tensor(ScalarType::Float);
  const Tensor* k = reader.tensor(ScalarType::Float);
  const Tensor* v = reader.tensor(ScalarType::Float);
  const StepTable steps = read_steps(reader);
  const int64_t heads = reader.integer();
  const double scale = reader.number();
  const Tensor* out = reader.tensor(ScalarType::Float);
  if (!reader.ok()) {
    return refuse(context, kName, kUnreadable, reader);
  }
  if (!fit_attention(*q, *k, *v, heads, *out)) {
    return refuse(context, kName, "q must be [N, P, heads * D], k and v [N, S, heads * D]", reader);
  }
  const int active = entry(steps);
  if (active < 0) {
    return refuse(context, kName, kNoSuchStep, reader);
  }
  Attention attention = {};
  attention.q = q->const_data_ptr<float>();
  attention.k = k->const_data_ptr<float>();
  attention.v = v->const_data_ptr<float>();
  attention.out = out->mutable_data_ptr<float>();
  attention.images = q->size(0);
  attention.queries = q->size(1);
  attention.keys = k->size(1);
  attention.heads = heads;
  attention.depth = q->size(2) / heads;
  attention.scale = static_cast<float>(scale);
  ContextScratch scratch(context);
  if (active != 0 && !attend(attention, active_kernels(), thread_pool(), scratch)) {
    context.fail(Error::MemoryAllocationFailed);
  }
}

void pairwise_out(KernelRuntimeContext& context, Stack stack, const char* name, PairFunction function) {
  ArgumentReader reader(stack);
  const Tensor* a = reader.tensor(ScalarType::Float);
  const Tensor* b = reader.tensor(ScalarType::Float);
  const StepTable steps = read_steps(reader);
  const Tensor* out = reader.tensor(ScalarType::Float);
  if (!reader.ok()) {
    return refuse(context, name, kUnreadable, reader);
  }
  const int64_t channels = channels_of(*a);
  if (channels < 1 || out->numel() != a->numel()) {
    return refuse(context, name, "a must be [N, ..., C], out like a", reader);
  }
  ImageVector vector;
  const int64_t images = images_of(*a);
  const bool is_vector = b->numel() != a->numel();
  if (is_vector && !bind_vector(b, images, channels, &vector)) {
    return refuse(context, name, "b must be like a, or [N or 1, C]", reader);
  }
  const int active = entry(steps);
  if (active < 0) {
    return refuse(context, name, kNoSuchStep, reader);
  }
  if (active != 0) {
    const Pairwise job = {a->const_data_ptr<float>(), b->const_data_ptr<float>(),          is_vector, vector.per_image,
                          images,                     a->numel() / channels / images, channels,
                          out->mutable_data_ptr<float>()};
    pairwise(job, function, thread_pool());
  }
}

void add_out(KernelRuntimeContext& context, Stack stack) {
  pairwise_out(context, stack, "modiff::add.out", active_kernels().add);
}

void multiply_out(KernelRuntimeContext& context, Stack stack) {
  pairwise_out(context, stack, "modiff::multiply.out", active_kernels().multiply);
}

void activate_out(KernelRuntimeContext& context, Stack stack) {
  constexpr char kName[] = "modiff::activate.out";
  ArgumentReader reader(stack);
  const Tensor* x = reader.tensor(ScalarType::Float);
  const StepTable steps = read_steps(reader);
  const int64_t activation = reader.integer();
  const Tensor* out = reader.tensor(ScalarType::Float);
  if (!reader.ok()) {
    return refuse(context, kName, kUnreadable, reader);
  }
  const int active = entry(steps);
  if (active < 0 || activation < 0 || activation >= kActivations || out->numel() != x->numel() || x->numel() < 1) {
    return refuse(context, kName, "unknown activation or step, or out is not like x", reader);
  }
  Prologue prologue;
  prologue.x = x->const_data_ptr<float>();
  prologue.positions = x->numel() / channels_of(*x);
  prologue.x_channels = channels_of(*x);
  prologue.activation = static_cast<Activation>(activation);
  ContextScratch scratch(context);
  if (active != 0 &&
      !normalize(prologue, row_width(prologue.positions), 1, active_kernels(), thread_pool(), scratch, out->mutable_data_ptr<float>())) {
    context.fail(Error::MemoryAllocationFailed);
  }
}

void reuse_out(KernelRuntimeContext& context, Stack stack) {
  constexpr char kName[] = "modiff::reuse.out";
  ArgumentReader reader(stack);
  const Tensor* x = reader.tensor(ScalarType::Float);
  const Tensor* step = reader.tensor(ScalarType::Long);
  const Tensor* held = reader.tensor(ScalarType::Float);
  const Tensor* history = reader.tensor(ScalarType::Float);
  const Tensor* counters = reader.tensor(ScalarType::Int);
  const Tensor* table = reader.tensor(ScalarType::Char);
  const Tensor* out = reader.tensor(ScalarType::Float);
  if (!reader.ok()) {
    return refuse(context, kName, kUnreadable, reader);
  }
  const int64_t count = x->numel();
  if (held->numel() != count || out->numel() != count || counters->numel() != kCounters ||
      (history->numel() != count && history->numel() != 1)) {
    return refuse(context, kName, "held, history, counters or out has the wrong size", reader);
  }
  const int kind = entry({step, table});
  if (kind < 0 || kind > 2) {
    return refuse(context, kName, kNoSuchStep, reader);
  }
  ReusePoint point = {};
  point.x = x->const_data_ptr<float>();
  point.held = held->mutable_data_ptr<float>();
  point.history = history->numel() == count ? history->mutable_data_ptr<float>() : nullptr;
  point.counters = counters->mutable_data_ptr<int32_t>();
  point.kind = static_cast<int8_t>(kind);
  point.count = count;
  point.out = out->mutable_data_ptr<float>();
  reuse(point, step->const_data_ptr<int64_t>()[0], active_kernels(), thread_pool());
}

}  // namespace

Span<const Kernel> feature_operators() {
  static const Kernel kernels[] = {
      Kernel("modiff::normalize.out", normalize_out), Kernel("modiff::attention.out", attention_out),
      Kernel("modiff::add.out", add_out),             Kernel("modiff::multiply.out", multiply_out),
      Kernel("modiff::activate.out", activate_out),   Kernel("modiff::reuse.out", reuse_out),
  };
  return {kernels, sizeof(kernels) / sizeof(kernels[0])};
}

}  // namespace modiff
