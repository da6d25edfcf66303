// When an output was made anew: counters in a job's state, from which a held output is extrapolated.
#pragma once

#include <cstdint>

namespace modiff {

// counters[]: how often it was made anew (0 = fresh), at which step last, and at which the time before.
enum Counter { kRefreshes = 0, kLastStep = 1, kPreviousStep = 2, kCounters = 4 };

inline bool is_fresh(const int32_t* counters) { return counters[kRefreshes] == 0; }

inline void count_refresh(int32_t* counters, int64_t step) {
  counters[kPreviousStep] = counters[kLastStep];
  counters[kLastStep] = static_cast<int32_t>(step);
  counters[kRefreshes] += 1;
}

// Two outputs make a line.
inline bool can_extrapolate(const int32_t* counters) { return counters[kRefreshes] >= 2; }

// The share of the last change that a line through the last two outputs adds by `step`.
inline float extrapolated_share(const int32_t* counters, int64_t step) {
  const int32_t newest = counters[kLastStep];
  const float ahead = static_cast<float>(static_cast<int32_t>(step) - newest);
  return ahead / static_cast<float>(newest - counters[kPreviousStep]);
}

}  // namespace modiff
