// What one call of an attention kernel needs beside its arguments.
#pragma once

#include <cstdint>

#include "kernels/kernel_set.h"

namespace modiff {

// Every row is `depth` floats, the head's depth rounded up to eight, or as many vectors.
template <typename S>
struct AttentionScratch {
  int64_t depth;
  float* keys;     // [keys, in tiles of eight][depth]
  float* values;   // [keys][depth]
  float* queries;  // [depth][lanes]
  float* mixed;    // [depth][lanes]
  float* scores;   // [kAttentionKeys][lanes]

  AttentionScratch(float* memory, int64_t key_count, int64_t head_depth)
      : depth((head_depth + 7) & ~int64_t{7}),
        keys(memory),
        values(keys + ((key_count + 7) & ~int64_t{7}) * depth),
        queries(values + key_count * depth),
        mixed(queries + depth * S::kWidth),
        scores(mixed + depth * S::kWidth) {
    static_assert(S::kWidth <= kMostAttentionLanes, "attention_scratch() is too small");
  }
};

}  // namespace modiff
