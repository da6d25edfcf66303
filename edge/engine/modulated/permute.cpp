#include "modulated/permute.h"

namespace modiff {
namespace {

// Rows of the last two dimensions, which x may hold in any order.
float* copy_plane(const Permutation& p, const float* x, float* out) {
  const int last = p.rank - 1;
  const int64_t rows = p.rank > 1 ? p.sizes[last - 1] : 1;
  const int64_t row_stride = p.rank > 1 ? p.strides[last - 1] : 0;
  const int64_t columns = p.rank > 0 ? p.sizes[last] : 1;
  const int64_t stride = p.rank > 0 ? p.strides[last] : 0;
  for (int64_t row = 0; row < rows; ++row, x += row_stride) {
    for (int64_t column = 0; column < columns; ++column) {
      *out++ = x[column * stride];
    }
  }
  return out;
}

}  // namespace

bool bind_permutation(const int64_t* x_sizes, const int64_t* order, int rank, Permutation* permutation) {
  if (rank < 0 || rank > kMaxRank) {
    return false;
  }
  int64_t strides[kMaxRank];
  int64_t stride = 1;
  for (int i = rank - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= x_sizes[i];
  }
  bool taken[kMaxRank] = {};
  permutation->rank = rank;
  for (int i = 0; i < rank; ++i) {
    const int64_t from = order[i] < 0 ? order[i] + rank : order[i];
    if (from < 0 || from >= rank || taken[from]) {
      return false;
    }
    taken[from] = true;
    permutation->sizes[i] = x_sizes[from];
    permutation->strides[i] = strides[from];
  }
  return true;
}

void permute(const Permutation& p, const float* x, float* out) {
  for (int i = 0; i < p.rank; ++i) {
    if (p.sizes[i] == 0) {
      return;
    }
  }
  int64_t place[kMaxRank] = {};
  for (;;) {
    out = copy_plane(p, x, out);
    int i = p.rank - 3;
    for (; i >= 0 && ++place[i] == p.sizes[i]; --i) {
      x -= (p.sizes[i] - 1) * p.strides[i];
      place[i] = 0;
    }
    if (i < 0) {
      return;
    }
    x += p.strides[i];
  }
}

}  // namespace modiff
