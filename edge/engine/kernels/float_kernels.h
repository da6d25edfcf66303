// Every float kernel of one vector type, as a kernel set around a convolution.
#pragma once

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/epilogue.h"
#include "kernels/kernels.h"
#include "kernels/moments.h"
#include "kernels/softmax.h"
#include "kernels/sweep.h"

namespace modiff {

template <typename S>
KernelSet float_kernels(const char* isa, void (*conv)(const ConvBlock&)) {
  KernelSet set = {};
  set.isa = isa;
  set.conv = conv;
  set.epilogue = epilogue<S>;
  set.quantize = quantize_rows<S>;
  set.prologue = store_rows<S>;
  set.channel_sums = channel_sums<S>;
  set.row_moments = row_moments<S>;
  set.attention = attention<S>;
  set.add = add_pairs<S>;
  set.multiply = multiply_pairs<S>;
  set.extrapolate = extrapolate_pairs<S>;
  set.sigmoid = sigmoid<S>;
  set.softmax = softmax_rows<S>;
  return set;
}

}  // namespace modiff
