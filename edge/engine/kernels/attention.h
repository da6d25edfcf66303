// Attention of up to 16 queries over all keys, 64 keys at a time, with a running maximum and sum (online softmax: Milakov
// and Gimelshein, 2018). Both products run in tiles of four rows and sixteen columns; every sum is a chain of fused
// products in ascending order.
#pragma once

#include "floats/functions.h"
#include "kernels/kernel_set.h"
#include "kernels/moments.h"

namespace modiff {

// c[rows][16] (+)= a[rows][depth] * b[depth][16], `Blocks` vectors of eight columns.
template <typename S, int Rows, int Blocks, bool Accumulate>
inline void matrix_tile(const float* a, ptrdiff_t a_stride, const float* b, ptrdiff_t b_stride, int64_t depth, float* c,
                        ptrdiff_t c_stride) {
  using F = typename S::F;
  F sums[Rows][Blocks];
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Blocks; ++v) {
      sums[r][v] = Accumulate ? S::load(c + r * c_stride + 8 * v) : S::splat(0.0F);
    }
  }
  int64_t k = 0;
  for (; k + 4 <= depth; k += 4, b += 4 * b_stride) {
    typename S::Quad quads[Rows];
    for (int r = 0; r < Rows; ++r) {
      quads[r] = S::load_quad(a + r * a_stride + k);
    }
    for (int v = 0; v < Blocks; ++v) {
      const F b0 = S::load(b + 8 * v);
      for (int r = 0; r < Rows; ++r) {
        sums[r][v] = S::template fma_lane<0>(b0, quads[r], sums[r][v]);
      }
    }
    for (int v = 0; v < Blocks; ++v) {
      const F b1 = S::load(b + b_stride + 8 * v);
      for (int r = 0; r < Rows; ++r) {
        sums[r][v] = S::template fma_lane<1>(b1, quads[r], sums[r][v]);
      }
    }
    for (int v = 0; v < Blocks; ++v) {
      const F b2 = S::load(b + 2 * b_stride + 8 * v);
      for (int r = 0; r < Rows; ++r) {
        sums[r][v] = S::template fma_lane<2>(b2, quads[r], sums[r][v]);
      }
    }
    for (int v = 0; v < Blocks; ++v) {
      const F b3 = S::load(b + 3 * b_stride + 8 * v);
      for (int r = 0; r < Rows; ++r) {
        sums[r][v] = S::template fma_lane<3>(b3, quads[r], sums[r][v]);
      }
    }
  }
  for (; k < depth; ++k, b += b_stride) {
    for (int v = 0; v < Blocks; ++v) {
      const F row = S::load(b + 8 * v);
      for (int r = 0; r < Rows; ++r) {
        sums[r][v] = S::fma(S::splat(a[r * a_stride + k]), row, sums[r][v]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Blocks; ++v) {
      S::store(c + r * c_stride + 8 * v, sums[r][v]);
    }
  }
}

template <typename S, int Blocks, bool Accumulate>
void matrix_columns(const float* a, ptrdiff_t a_stride, int rows, const float* b, ptrdiff_t b_stride, int64_t depth,
                    float* c, ptrdiff_t c_stride) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) {
    matrix_tile<S, 4, Blocks, Accumulate>(a + r * a_stride, a_stride, b, b_stride, depth, c + r * c_stride, c_stride);
  }
  for (; r < rows; ++r) {
    matrix_tile<S, 1, Blocks, Accumulate>(a + r * a_stride, a_stride, b, b_stride, depth, c + r * c_stride, c_stride);
  }
}

// The scratch of one call; every row starts at a multiple of eight floats.
struct AttentionScratch {
  float* values;   // [kAttentionKeys][8]: the last values' columns, padded
  float* scores;   // [kAttentionQueries][kAttentionKeys]
  float* mixed;    // [kAttentionQueries][padded depth]
  float* maximum;  // [kAttentionQueries]
  float* sum;      // [kAttentionQueries]

  AttentionScratch(float* memory, int64_t depth)
      : values(memory),
        scores(values + kAttentionKeys * 8),
        mixed(scores + kAttentionQueries * kAttentionKeys),
        maximum(mixed + kAttentionQueries * ((depth + 7) & ~int64_t{7})),
        sum(maximum + kAttentionQueries) {}
};

// exp(score - maximum) over a row of scores, and the row's running sums; `count` scores, zero after them.
template <typename S>
float soften(float* scores, int count, float scale, float* maximum, float* sum) {
  using F = typename S::F;
  const int whole = (count + 7) & ~7;
  for (int i = count; i < whole; ++i) {
    scores[i] = scores[count - 1];
  }
  F most = S::splat(*maximum);
  for (int i = 0; i < whole; i += 8) {
    const F scaled = S::mul(S::load(scores + i), S::splat(scale));
    S::store(scores + i, scaled);
    most = S::max(scaled, most);
  }
  float lanes[8];
  S::store(lanes, most);
  float top = lanes[0];
  for (const float lane : lanes) {
    top = lane > top || lane != lane ? lane : top;
  }
  F total = S::splat(0.0F);
  for (int i = 0; i < whole; i += 8) {
    S::store(scores + i, exp_of_negated<S>(S::sub(S::splat(top), S::load(scores + i))));
    if (i + 8 > count) {
      for (int j = count; j < whole; ++j) {
        scores[j] = 0.0F;
      }
    }
    total = S::add(total, S::load(scores + i));
  }
  float rescale[8];
  S::store(rescale, exp_of_negated<S>(S::splat(top - *maximum)));
  *maximum = top;
  *sum = *sum * rescale[0] + lane_sum<S>(total);
  return rescale[0];
}

template <typename S>
void mix_values(const AttentionBlock& job, const AttentionScratch& s, const float* v, int keys, int64_t padded) {
  int64_t d = 0;
  for (; d + 16 <= job.depth; d += 16) {
    matrix_columns<S, 2, true>(s.scores, kAttentionKeys, job.queries, v + d, job.kv_stride, keys, s.mixed + d, padded);
  }
  for (; d + 8 <= job.depth; d += 8) {
    matrix_columns<S, 1, true>(s.scores, kAttentionKeys, job.queries, v + d, job.kv_stride, keys, s.mixed + d, padded);
  }
  if (d < job.depth) {
    for (int j = 0; j < keys; ++j) {
      S::store(s.values + 8 * j, load_some<S>(v + j * job.kv_stride + d, static_cast<int>(job.depth - d)));
    }
    matrix_columns<S, 1, true>(s.scores, kAttentionKeys, job.queries, s.values, 8, keys, s.mixed + d, padded);
  }
}

template <typename S>
void attention(const AttentionBlock& job) {
  const AttentionScratch s(job.scratch, job.depth);
  const int64_t padded = (job.depth + 7) & ~int64_t{7};
  for (int64_t i = 0; i < job.queries * padded; ++i) {
    s.mixed[i] = 0.0F;
  }
  for (int i = 0; i < job.queries; ++i) {
    s.maximum[i] = -3.0e38F;
    s.sum[i] = 0.0F;
  }
  for (int64_t first = 0; first < job.keys; first += kAttentionKeys) {
    const int keys = static_cast<int>(job.keys - first < kAttentionKeys ? job.keys - first : kAttentionKeys);
    const float* turned = job.turned + first * job.depth;
    int column = 0;
    for (; column + 16 <= keys; column += 16) {
      matrix_columns<S, 2, false>(job.q, job.q_stride, job.queries, turned + column, kAttentionKeys, job.depth,
                                  s.scores + column, kAttentionKeys);
    }
    for (; column < keys; column += 8) {
      matrix_columns<S, 1, false>(job.q, job.q_stride, job.queries, turned + column, kAttentionKeys, job.depth,
                                  s.scores + column, kAttentionKeys);
    }
    for (int i = 0; i < job.queries; ++i) {
      const float rescale =
          soften<S>(s.scores + i * kAttentionKeys, keys, job.scale, s.maximum + i, s.sum + i);
      for (int64_t d = 0; d < padded && first > 0; d += 8) {
        float* mixed = s.mixed + i * padded + d;
        S::store(mixed, S::mul(S::load(mixed), S::splat(rescale)));
      }
    }
    mix_values<S>(job, s, job.v + first * job.kv_stride, keys, padded);
  }
  for (int i = 0; i < job.queries; ++i) {
    const typename S::F sum = S::splat(s.sum[i]);
    for (int64_t d = 0; d < job.depth; d += 8) {
      const typename S::F y = S::div(S::load(s.mixed + i * padded + d), sum);
      store_some<S>(job.out + i * job.q_stride + d, y, job.depth - d < 8 ? static_cast<int>(job.depth - d) : 8);
    }
  }
}

}  // namespace modiff
