#include "ops/arguments.h"

namespace modiff {
namespace {

constexpr size_t kScratchAlignment = 64;

// Dense, dimensions in their natural order.
bool is_contiguous(const Tensor& tensor) {
  const auto order = tensor.dim_order();
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i] != i) {
      return false;
    }
  }
  return true;
}

}  // namespace

executorch::runtime::EValue* ArgumentReader::next() {
  executorch::runtime::EValue* value = index_ < stack_.size() ? stack_[index_] : nullptr;
  ++index_;
  if (value == nullptr) {
    fail();
  }
  return value;
}

void ArgumentReader::fail() {
  if (failed_at_ < 0) {
    failed_at_ = static_cast<int>(index_) - 1;
  }
}

const Tensor* ArgumentReader::tensor(ScalarType type) { return checked(next(), type); }

const Tensor* ArgumentReader::optional_tensor(ScalarType type) {
  executorch::runtime::EValue* value = next();
  return value == nullptr || value->isNone() ? nullptr : checked(value, type);
}

const Tensor* ArgumentReader::checked(executorch::runtime::EValue* value, ScalarType type) {
  if (value == nullptr || !value->isTensor()) {
    fail();
    return nullptr;
  }
  const Tensor& tensor = value->toTensor();
  if (tensor.scalar_type() != type || !is_contiguous(tensor) || tensor.const_data_ptr() == nullptr) {
    fail();
    return nullptr;
  }
  return &tensor;
}

double ArgumentReader::number() {
  executorch::runtime::EValue* value = next();
  if (value == nullptr || !value->isDouble()) {
    fail();
    return 0.0;
  }
  return value->toDouble();
}

int64_t ArgumentReader::integer() {
  executorch::runtime::EValue* value = next();
  if (value == nullptr || !value->isInt()) {
    fail();
    return 0;
  }
  return value->toInt();
}

bool ArgumentReader::flag() {
  executorch::runtime::EValue* value = next();
  if (value == nullptr || !value->isBool()) {
    fail();
    return false;
  }
  return value->toBool();
}

const int64_t* ArgumentReader::integers(size_t count) {
  executorch::runtime::EValue* value = next();
  if (value == nullptr || !value->isIntList()) {
    fail();
    return nullptr;
  }
  const auto list = value->tryToIntList();
  if (!list.ok() || list->size() != count) {
    fail();
    return nullptr;
  }
  return list->data();
}

void ArgumentReader::pair(int64_t* first, int64_t* second) {
  const int64_t* values = integers(2);
  if (values != nullptr) {
    *first = values[0];
    *second = values[1];
  }
}

void* ContextScratch::allocate_bytes(size_t bytes) {
  auto memory = context_.allocate_temp(bytes > 0 ? bytes : 1, kScratchAlignment);
  return memory.ok() ? memory.get() : nullptr;
}

}  // namespace modiff
