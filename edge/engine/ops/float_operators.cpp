#include "ops/float_operators.h"

#include <cstring>

#include "modulated/permute.h"
#include "ops/arguments.h"
#include "ops/process.h"

namespace modiff {
namespace {

using executorch::runtime::Error;
using executorch::runtime::Kernel;
using executorch::runtime::KernelRuntimeContext;
using executorch::runtime::OpFunction;
using executorch::runtime::Span;

constexpr char kSigmoid[] = "aten::sigmoid.out";
constexpr char kSoftmax[] = "aten::_softmax.out";
constexpr char kPermute[] = "aten::permute_copy.out";

// The runtime's operator of this name, nullptr when it has none.
OpFunction runtime_operator(const char* name) {
  for (const Kernel& kernel : executorch::runtime::get_registered_kernels()) {
    if (kernel.kernel_key_.is_fallback() && std::strcmp(kernel.name_, name) == 0) {
      return kernel.op_;
    }
  }
  return nullptr;
}

void pass_on(const char* name, KernelRuntimeContext& context, Stack stack) {
  const OpFunction original = runtime_operator(name);
  if (original == nullptr) {
    context.fail(Error::OperatorMissing);
    return;
  }
  original(context, stack);
}

bool same_shape(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) {
    return false;
  }
  for (int i = 0; i < a.dim(); ++i) {
    if (a.size(i) != b.size(i)) {
      return false;
    }
  }
  return true;
}

void sigmoid_out(KernelRuntimeContext& context, Stack stack) {
  ArgumentReader reader(stack);
  const Tensor* x = reader.tensor(ScalarType::Float);
  const Tensor* out = reader.tensor(ScalarType::Float);
  if (!reader.ok() || !same_shape(*x, *out)) {
    pass_on(kSigmoid, context, stack);
    return;
  }
  active_kernels().sigmoid(x->const_data_ptr<float>(), static_cast<size_t>(x->numel()), out->mutable_data_ptr<float>());
}

void softmax_out(KernelRuntimeContext& context, Stack stack) {
  ArgumentReader reader(stack);
  const Tensor* x = reader.tensor(ScalarType::Float);
  const int64_t axis = reader.integer();
  const bool half_to_float = reader.flag();
  const Tensor* out = reader.tensor(ScalarType::Float);
  const bool readable = reader.ok() && !half_to_float && same_shape(*x, *out) && x->dim() > 0 && x->numel() > 0;
  if (!readable || (axis != -1 && axis != x->dim() - 1)) {
    pass_on(kSoftmax, context, stack);
    return;
  }
  const size_t columns = static_cast<size_t>(x->size(x->dim() - 1));
  const size_t rows = static_cast<size_t>(x->numel()) / columns;
  active_kernels().softmax(x->const_data_ptr<float>(), rows, columns, out->mutable_data_ptr<float>());
}

bool read_permutation(ArgumentReader& reader, const Tensor& x, Permutation* permutation) {
  const int rank = static_cast<int>(x.dim());
  const int64_t* order = reader.integers(static_cast<size_t>(rank));
  if (order == nullptr || rank > kMaxRank) {
    return false;
  }
  int64_t sizes[kMaxRank];
  for (int i = 0; i < rank; ++i) {
    sizes[i] = x.size(i);
  }
  return bind_permutation(sizes, order, rank, permutation);
}

void permute_out(KernelRuntimeContext& context, Stack stack) {
  ArgumentReader reader(stack);
  const Tensor* x = reader.tensor(ScalarType::Float);
  Permutation permutation;
  const bool bound = x != nullptr && read_permutation(reader, *x, &permutation);
  const Tensor* out = bound ? reader.tensor(ScalarType::Float) : nullptr;
  if (out == nullptr || out->numel() != x->numel()) {
    pass_on(kPermute, context, stack);
    return;
  }
  permute(permutation, x->const_data_ptr<float>(), out->mutable_data_ptr<float>());
}

}  // namespace

Span<const Kernel> float_operators() {
  static const Kernel kernels[] = {Kernel(kSigmoid, sigmoid_out), Kernel(kSoftmax, softmax_out),
                                   Kernel(kPermute, permute_out)};
  return {kernels, sizeof(kernels) / sizeof(kernels[0])};
}

}  // namespace modiff
