// Declarations of what the kernel sets are made of: convolutions named by operation, tile and instruction set, each in a
// file of its name, and the float kernels of each vector type.
#pragma once

#include "kernels/kernel_set.h"

namespace modiff {

void conv_1x16_portable(const ConvBlock&);
KernelSet float_kernels_portable(const char* isa, void (*conv)(const ConvBlock&));

#if defined(__aarch64__)
void conv_2x16_neon(const ConvBlock&);
void conv_6x16_dotprod(const ConvBlock&);
void conv_6x16_i8mm(const ConvBlock&);
KernelSet float_kernels_neon(const char* isa, void (*conv)(const ConvBlock&));
#elif defined(__x86_64__)
void conv_4x16_avx2(const ConvBlock&);
void pixel_bounds_avx2(const int8_t* codes, int64_t pixels, int64_t pixel_bytes, uint8_t* bounds);
void conv_12x16_avx512vnni(const ConvBlock&);
KernelSet float_kernels_avx2(const char* isa, void (*conv)(const ConvBlock&));
#endif

}  // namespace modiff
