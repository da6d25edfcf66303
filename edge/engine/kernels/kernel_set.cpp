#include "kernels/kernel_set.h"

#include <cstring>

#include "kernels/kernels.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace modiff {
namespace {

struct Choice {
  KernelSet kernels;
  bool runs_here;
};

// From the plainest set to the best.
#if defined(__aarch64__)

// Linux, arch/arm64/include/uapi/asm/hwcap.h.
constexpr unsigned long kHwcapDotProduct = 1UL << 20;
constexpr unsigned long kHwcap2I8mm = 1UL << 13;

const Choice* choices(size_t* count) {
  static const Choice all[] = {
      {float_kernels_portable("portable", conv_1x16_portable), true},
      {float_kernels_neon("neon", conv_2x16_neon), true},
      {float_kernels_neon("dotprod", conv_6x16_dotprod), (getauxval(AT_HWCAP) & kHwcapDotProduct) != 0},
      {float_kernels_neon("i8mm", conv_6x16_i8mm), (getauxval(AT_HWCAP2) & kHwcap2I8mm) != 0},
  };
  *count = sizeof(all) / sizeof(all[0]);
  return all;
}

#elif defined(__x86_64__)

bool has_avx2() { return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0; }

bool has_avx512vnni() {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512vnni") != 0;
}

KernelSet kernels_avx2() {
  KernelSet set = float_kernels_avx2("avx2", conv_4x16_avx2);
  set.pixel_bounds = pixel_bounds_avx2;
  return set;
}

const Choice* choices(size_t* count) {
  static const Choice all[] = {
      {float_kernels_portable("portable", conv_1x16_portable), true},
      {kernels_avx2(), has_avx2()},
      {float_kernels_avx2("avx512vnni", conv_12x16_avx512vnni), has_avx2() && has_avx512vnni()},
  };
  *count = sizeof(all) / sizeof(all[0]);
  return all;
}

#else

const Choice* choices(size_t* count) {
  static const Choice all[] = {{float_kernels_portable("portable", conv_1x16_portable), true}};
  *count = 1;
  return all;
}

#endif

}  // namespace

const KernelSet* find_kernels(const char* isa) {
  size_t count = 0;
  const Choice* all = choices(&count);
  for (size_t i = count; i-- > 0;) {
    if (all[i].runs_here && (std::strcmp(isa, "auto") == 0 || std::strcmp(isa, all[i].kernels.isa) == 0)) {
      return &all[i].kernels;
    }
  }
  return nullptr;
}

}  // namespace modiff
