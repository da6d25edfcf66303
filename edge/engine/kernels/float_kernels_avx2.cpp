#include "kernels/float_kernels.h"
#include "simd/avx2.h"

namespace modiff {

KernelSet float_kernels_avx2(const char* isa, void (*conv)(const ConvBlock&)) { return float_kernels<Avx2>(isa, conv); }

}  // namespace modiff
