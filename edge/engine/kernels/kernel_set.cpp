#include "kernels/kernel_set.h"

#include <cstring>

#include "kernels/kernels.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace modiff {
namespace {

constexpr KernelSet kPortable = {"portable", quantize_portable, conv_row_1x16_portable, dequantize_portable,
                                 transpose_portable};

#if defined(__aarch64__)

constexpr KernelSet kNeon = {"neon", quantize_neon, conv_row_2x16_neon, dequantize_neon, transpose_4x4_neon};
constexpr KernelSet kDotprod = {"dotprod", quantize_neon, conv_row_4x16_dotprod, dequantize_neon, transpose_4x4_neon};

// Linux, arch/arm64/include/uapi/asm/hwcap.h.
constexpr unsigned long kHwcapDotProduct = 1UL << 20;

const KernelSet* best_kernels() {
  return (getauxval(AT_HWCAP) & kHwcapDotProduct) != 0 ? &kDotprod : &kNeon;
}

const KernelSet* named_kernels(const char* isa) {
  if (std::strcmp(isa, "neon") == 0) {
    return &kNeon;
  }
  const bool wanted = std::strcmp(isa, "dotprod") == 0;
  return wanted && best_kernels() == &kDotprod ? &kDotprod : nullptr;
}

#elif defined(__x86_64__)

constexpr KernelSet kAvx2 = {"avx2", quantize_portable, conv_row_4x16_avx2, dequantize_portable, transpose_portable};

const KernelSet* best_kernels() {
  return __builtin_cpu_supports("avx2") != 0 ? &kAvx2 : &kPortable;
}

const KernelSet* named_kernels(const char* isa) {
  const bool wanted = std::strcmp(isa, "avx2") == 0;
  return wanted && best_kernels() == &kAvx2 ? &kAvx2 : nullptr;
}

#else

const KernelSet* best_kernels() { return &kPortable; }
const KernelSet* named_kernels(const char*) { return nullptr; }

#endif

}  // namespace

const KernelSet* find_kernels(const char* isa) {
  if (std::strcmp(isa, "auto") == 0) {
    return best_kernels();
  }
  return std::strcmp(isa, "portable") == 0 ? &kPortable : named_kernels(isa);
}

}  // namespace modiff
