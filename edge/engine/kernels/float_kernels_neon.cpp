#include "kernels/float_kernels.h"
#include "simd/neon.h"

namespace modiff {

KernelSet float_kernels_neon(const char* isa, void (*conv)(const ConvBlock&)) { return float_kernels<Neon>(isa, conv); }

}  // namespace modiff
