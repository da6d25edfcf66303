#include "kernels/float_kernels.h"
#include "simd/portable.h"

namespace modiff {

KernelSet float_kernels_portable(const char* isa, void (*conv)(const ConvBlock&)) { return float_kernels<Portable>(isa, conv); }

}  // namespace modiff
