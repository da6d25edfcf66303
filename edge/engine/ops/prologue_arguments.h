// The prologue's arguments, as several operators have them.
#pragma once

#include <cstdint>

#include "modulated/prologue.h"
#include "ops/arguments.h"

namespace modiff {

// In the schemas' order (edge/calls.py).
struct PrologueArguments {
  int64_t norm;
  int64_t groups;
  double eps;
  const Tensor* weight;
  const Tensor* bias;
  int64_t activation;
};

PrologueArguments read_prologue(ArgumentReader& reader);

// How the operator looks at its input.
struct PrologueShape {
  int64_t images;
  int64_t positions;  // of an image
};

// Fills in `prologue` and checks it; says what is wrong, or nullptr.
const char* bind_prologue(const Tensor* x, const Tensor* skip, const PrologueArguments& arguments,
                          const PrologueShape& shape, Prologue* prologue);

// A vector of `channels` values, or one for each image; false where `tensor`, unless nullptr, is neither.
bool bind_vector(const Tensor* tensor, int64_t images, int64_t channels, ImageVector* vector);

}  // namespace modiff
