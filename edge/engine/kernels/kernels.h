// Declarations of every kernel, named by operation, tile and instruction set; each is defined in a file of its name.
#pragma once

#include "kernels/kernel_set.h"

namespace modiff {

QuantizeOutcome quantize_portable(const QuantizePass&, const float*, int16_t*, int8_t*, size_t);
void conv_row_1x16_portable(const ConvRow&);
void dequantize_portable(const DequantizeBlock&);
void transpose_portable(const float*, ptrdiff_t, int, int, float*, ptrdiff_t);

#if defined(__aarch64__)
QuantizeOutcome quantize_neon(const QuantizePass&, const float*, int16_t*, int8_t*, size_t);
void conv_row_2x16_neon(const ConvRow&);
void conv_row_4x16_dotprod(const ConvRow&);
void dequantize_neon(const DequantizeBlock&);
void transpose_4x4_neon(const float*, ptrdiff_t, int, int, float*, ptrdiff_t);
#elif defined(__x86_64__)
void conv_row_4x16_avx2(const ConvRow&);
#endif

}  // namespace modiff
