#include "kernels/kernel_set.h"

namespace modiff {

// As AttentionScratch lays it out.
size_t attention_scratch(int64_t depth) {
  const int64_t padded = (depth + 7) & ~int64_t{7};
  return static_cast<size_t>(kAttentionKeys * 8 + kAttentionQueries * kAttentionKeys +
                             kAttentionQueries * padded + 2 * kAttentionQueries);
}

}  // namespace modiff
