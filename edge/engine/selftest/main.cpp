// modiff-selftest ISA: runs cases from stdin through the kernels and writes what came out to stdout.
//
// Built only for the tests, which compare with calib's reference. Many cases go through one process, because a
// process under emulation is slow to start. All values are little-endian. A case is a u32 kind, then:
//   1 layer: LayerHeader, weights per plane, scale, bias, table, norm weight and bias, shift, gate, then per run an int64
//     step, x, skip and add. Answered per run by u32 status, four u64 statistics and the output; at the end by lattice,
//     accumulator, history and counters.
//   2 noise: u64 seed, u64 count. Answered by floats.
//   3 CRC-32C: u64 count, bytes. Answered by u32.
//   4 anomaly map: int32 channels, height, width, reconstruction, image. Answered by the score and the map.
//   5 activations: u64 rows, u64 columns, x. Answered by the sigmoid, then the softmax of the rows.
//   6 normalize: a header, norm weight and bias, x, skip. Answered by floats.
//   7 attention: a header, q, k, v. Answered by floats.
//   8 reuse: int64 count, int64 steps, the table, then x a step. Answered by floats a step.
//   9 permute: int64 rank, x's sizes, the order, x. Answered by u32, whether it is a permutation, and if so by floats.
#include <cstdint>
#include <cstdio>

#include "kernels/kernel_set.h"
#include "selftest/cases.h"
#include "selftest/stream.h"

namespace {

enum Kind : uint32_t {
  kLayer = 1,
  kNoise = 2,
  kChecksum = 3,
  kAnomalies = 4,
  kActivations = 5,
  kNormalize = 6,
  kAttention = 7,
  kReuse = 8,
  kPermute = 9,
};

void run_case(uint32_t kind, const modiff::KernelSet& kernels) {
  switch (kind) {
    case kLayer:
      return selftest::run_layer_case(kernels);
    case kNoise:
      return selftest::run_noise_case();
    case kChecksum:
      return selftest::run_checksum_case();
    case kAnomalies:
      return selftest::run_anomalies_case();
    case kActivations:
      return selftest::run_activations_case(kernels);
    case kNormalize:
      return selftest::run_normalize_case(kernels);
    case kAttention:
      return selftest::run_attention_case(kernels);
    case kReuse:
      return selftest::run_reuse_case(kernels);
    case kPermute:
      return selftest::run_permute_case();
    default:
      selftest::quit("unknown kind of case");
  }
}

}  // namespace

int main(int count, char** arguments) {
  const modiff::KernelSet* kernels = count == 2 ? modiff::find_kernels(arguments[1]) : nullptr;
  if (kernels == nullptr) {
    selftest::quit("usage: modiff-selftest ISA, with an ISA that this CPU has");
  }
  uint32_t kind = 0;
  while (std::fread(&kind, sizeof(kind), 1, stdin) == 1) {
    run_case(kind, *kernels);
    std::fflush(stdout);
  }
  return 0;
}
