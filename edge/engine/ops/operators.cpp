#include "ops/operators.h"

#include <cstring>
#include <initializer_list>
#include <vector>

#include "ops/feature_operators.h"
#include "ops/float_operators.h"
#include "ops/modulated_operators.h"

namespace modiff {
namespace {

using executorch::runtime::Kernel;
using executorch::runtime::Span;

bool has_operator(const std::vector<Kernel>& kernels, const char* name) {
  for (const Kernel& kernel : kernels) {
    if (std::strcmp(kernel.name_, name) == 0) {
      return true;
    }
  }
  return false;
}

std::vector<Kernel> collect_own() {
  std::vector<Kernel> ours;
  for (const Span<const Kernel> part :
       {modulated_operators(), feature_operators(), float_operators()}) {
    ours.insert(ours.end(), part.begin(), part.end());
  }
  return ours;
}

// Ours first, then the runtime's, so that a lookup finds every operator in one table.
std::vector<Kernel> merged_table() {
  const std::vector<Kernel> ours = collect_own();
  std::vector<Kernel> kernels = ours;
  for (const Kernel& kernel : executorch::runtime::get_registered_kernels()) {
    if (!has_operator(ours, kernel.name_)) {
      kernels.push_back(kernel);
    }
  }
  return kernels;
}

}  // namespace

Span<const Kernel> own_operators() {
  static const std::vector<Kernel> kernels = collect_own();
  return {kernels.data(), kernels.size()};
}

Span<const Kernel> operator_table() {
  static const std::vector<Kernel> kernels = merged_table();
  return {kernels.data(), kernels.size()};
}

}  // namespace modiff
