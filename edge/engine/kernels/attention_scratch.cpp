#include "kernels/attention_scratch.h"

namespace modiff {

size_t attention_scratch(int64_t keys, int64_t depth) {
  const int64_t padded = (depth + 7) & ~int64_t{7};
  const int64_t padded_keys = (keys + 7) & ~int64_t{7};
  return static_cast<size_t>(2 * padded_keys * padded + 2 * padded * kMostAttentionLanes +
                             kAttentionKeys * kMostAttentionLanes);
}

}  // namespace modiff
