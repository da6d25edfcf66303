// A tensor's dimensions in another order, as a copy.
#pragma once

#include <cstdint>

namespace modiff {

constexpr int kMaxRank = 16;

struct Permutation {
  int rank = 0;
  int64_t sizes[kMaxRank] = {};    // of the result
  int64_t strides[kMaxRank] = {};  // of each of its dimensions in x, in elements
};

// The result's dimension i is dimension order[i] of x, counted from the end where negative. False: no permutation.
bool bind_permutation(const int64_t* x_sizes, const int64_t* order, int rank, Permutation* permutation);

void permute(const Permutation& permutation, const float* x, float* out);

}  // namespace modiff
