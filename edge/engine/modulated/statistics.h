// What the modulated layers of one step have cost; the engine zeroes it before a step and reads it after.
#pragma once

#include <cstdint>

namespace modiff {

struct StepStatistics {
  uint64_t passes = 0;           // main-weight passes
  uint64_t residual_passes = 0;  // residual-weight passes
  uint64_t macs = 0;             // multiply-accumulates of those passes, padding and skipped zeros included, spills not
  uint64_t saturated = 0;        // inputs beyond code and spill, or NaN, in each layer's last main pass
};

}  // namespace modiff
