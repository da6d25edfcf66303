#include "ops/prologue_arguments.h"

namespace modiff {

PrologueArguments read_prologue(ArgumentReader& reader) {
  PrologueArguments arguments = {};
  arguments.norm = reader.integer();
  arguments.groups = reader.integer();
  arguments.eps = reader.number();
  arguments.weight = reader.optional_tensor(ScalarType::Float);
  arguments.bias = reader.optional_tensor(ScalarType::Float);
  arguments.activation = reader.integer();
  return arguments;
}

bool bind_vector(const Tensor* tensor, int64_t images, int64_t channels, ImageVector* vector) {
  if (tensor == nullptr) {
    return true;
  }
  const int64_t count = tensor->numel();
  if (count != channels && count != images * channels) {
    return false;
  }
  *vector = {tensor->const_data_ptr<float>(), count != channels};
  return true;
}

const char* bind_prologue(const Tensor* x, const Tensor* skip, const PrologueArguments& arguments,
                          const PrologueShape& shape, Prologue* prologue) {
  if (arguments.norm < 0 || arguments.norm > static_cast<int64_t>(Norm::kRms) || arguments.activation < 0 ||
      arguments.activation >= kActivations) {
    return "unknown norm or activation";
  }
  const int64_t rows = shape.images * shape.positions;
  prologue->x = x->const_data_ptr<float>();
  prologue->x_channels = x->size(x->dim() - 1);
  prologue->skip = skip == nullptr ? nullptr : skip->const_data_ptr<float>();
  prologue->skip_channels = skip == nullptr || skip->dim() == 0 ? 0 : skip->size(skip->dim() - 1);
  prologue->images = shape.images;
  prologue->positions = shape.positions;
  if (x->numel() != rows * prologue->x_channels ||
      (skip != nullptr && skip->numel() != rows * prologue->skip_channels)) {
    return "x or skip has the wrong size";
  }
  prologue->norm = static_cast<Norm>(arguments.norm);
  prologue->groups = arguments.groups;
  prologue->eps = static_cast<float>(arguments.eps);
  prologue->activation = static_cast<Activation>(arguments.activation);
  if (!bind_vector(arguments.weight, shape.images, prologue->channels(), &prologue->weight) ||
      !bind_vector(arguments.bias, shape.images, prologue->channels(), &prologue->bias)) {
    return "norm_weight or norm_bias must be [C] or [N or 1, C]";
  }
  return is_sound(*prologue) ? nullptr : "the norm does not fit the channels";
}

}  // namespace modiff
