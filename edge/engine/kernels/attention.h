// Attention of some queries of one head over all its keys: a vector holds one query a lane, so that scores, the running
// maximum and sum (online softmax: Milakov and Gimelshein, 2018) and the outputs never cross lanes, and how many lanes
// there are changes no bit. Keys are met in blocks of kAttentionKeys, in tiles of eight; sums are chains of fused products.
#pragma once

#include "floats/functions.h"
#include "kernels/attention_scratch.h"
#include "kernels/kernel_set.h"

namespace modiff {

constexpr int kAttentionTile = 8;

// sums[i] (+)= row(i) of four numbers * four vectors; the first product of a chain is rounded like the fused ones.
template <typename S, int Rows, bool First>
MODIFF_INLINE void add_quads(const typename S::Quad (&rows)[Rows], const float* vectors, typename S::F (&sums)[Rows]) {
  using F = typename S::F;
  const F v0 = S::load(vectors);
  for (int i = 0; i < Rows; ++i) {
    sums[i] = First ? S::template mul_lane<0>(v0, rows[i]) : S::template fma_lane<0>(v0, rows[i], sums[i]);
  }
  const F v1 = S::load(vectors + S::kWidth);
  for (int i = 0; i < Rows; ++i) {
    sums[i] = S::template fma_lane<1>(v1, rows[i], sums[i]);
  }
  const F v2 = S::load(vectors + 2 * S::kWidth);
  for (int i = 0; i < Rows; ++i) {
    sums[i] = S::template fma_lane<2>(v2, rows[i], sums[i]);
  }
  const F v3 = S::load(vectors + 3 * S::kWidth);
  for (int i = 0; i < Rows; ++i) {
    sums[i] = S::template fma_lane<3>(v3, rows[i], sums[i]);
  }
}

// Scores of `Keys` keys: [Keys][lanes]; returns the largest of them and `most`.
template <typename S, int Keys>
MODIFF_INLINE typename S::F score_keys(const AttentionScratch<S>& s, const float* keys, float* scores,
                                       typename S::F most) {
  typename S::F sums[Keys];
  const auto quads = [&](int64_t d, typename S::Quad(&rows)[Keys]) {
    for (int i = 0; i < Keys; ++i) {
      rows[i] = S::load_quad(keys + i * s.depth + d);
    }
  };
  typename S::Quad rows[Keys];
  quads(0, rows);
  add_quads<S, Keys, true>(rows, s.queries, sums);
  for (int64_t d = 4; d < s.depth; d += 4) {
    quads(d, rows);
    add_quads<S, Keys, false>(rows, s.queries + d * S::kWidth, sums);
  }
  for (int i = 0; i < Keys; ++i) {
    most = S::max(sums[i], most);
    S::store(scores + i * S::kWidth, sums[i]);
  }
  return most;
}

// scores = 2^(scores - maximum); returns the sum and what they add, ascending.
template <typename S>
MODIFF_INLINE typename S::F soften(float* scores, int keys, const typename S::F& maximum, typename S::F sum) {
  int j = 0;
  for (; j + 2 <= keys; j += 2, scores += 2 * S::kWidth) {
    const typename S::F first = exp2_of_negative<S>(S::sub(S::load(scores), maximum));
    const typename S::F second = exp2_of_negative<S>(S::sub(S::load(scores + S::kWidth), maximum));
    S::store(scores, first);
    S::store(scores + S::kWidth, second);
    sum = S::add(S::add(sum, first), second);
  }
  if (j < keys) {
    const typename S::F last = exp2_of_negative<S>(S::sub(S::load(scores), maximum));
    S::store(scores, last);
    sum = S::add(sum, last);
  }
  return sum;
}

// mixed[d] = mixed[d] * rescale + the values' column d, weighted: eight columns at a time.
template <typename S>
MODIFF_INLINE void mix_values(const AttentionScratch<S>& s, const float* values, int keys,
                              const typename S::F& rescale) {
  for (int64_t d = 0; d < s.depth; d += kAttentionTile) {
    typename S::F sums[kAttentionTile];
    float* const mixed = s.mixed + d * S::kWidth;
    for (int i = 0; i < kAttentionTile; ++i) {
      sums[i] = S::mul(S::load(mixed + i * S::kWidth), rescale);
    }
    const float* value = values + d;
    const float* weight = s.scores;
    for (int j = 0; j < keys; ++j, value += s.depth, weight += S::kWidth) {
      const typename S::F p = S::load(weight);
      const typename S::Quad low = S::load_quad(value);
      const typename S::Quad high = S::load_quad(value + 4);
      sums[0] = S::template fma_lane<0>(p, low, sums[0]);
      sums[1] = S::template fma_lane<1>(p, low, sums[1]);
      sums[2] = S::template fma_lane<2>(p, low, sums[2]);
      sums[3] = S::template fma_lane<3>(p, low, sums[3]);
      sums[4] = S::template fma_lane<0>(p, high, sums[4]);
      sums[5] = S::template fma_lane<1>(p, high, sums[5]);
      sums[6] = S::template fma_lane<2>(p, high, sums[6]);
      sums[7] = S::template fma_lane<3>(p, high, sums[7]);
    }
    for (int i = 0; i < kAttentionTile; ++i) {
      S::store(mixed + i * S::kWidth, sums[i]);
    }
  }
}

// Rows of `depth` floats, `stride` apart, one behind the other and padded with zeros.
template <typename S>
void pack_rows(const float* rows, ptrdiff_t stride, int64_t count, int64_t depth, int64_t padded, float* packed) {
  using E = typename S::Eight;
  for (int64_t i = 0; i < count; ++i, rows += stride, packed += padded) {
    int64_t d = 0;
    for (; d + 8 <= depth; d += 8) {
      E::store(packed + d, E::load(rows + d));
    }
    if (d < depth) {
      E::store(packed + d, load_some<E>(rows + d, static_cast<int>(depth - d)));
    }
  }
}

// Up to kWidth queries -> [depth][kWidth], in units of log2(e) * scale, zeros where there is none.
template <typename S>
void turn_queries(const AttentionBlock& job, const AttentionScratch<S>& s, int64_t first, int count) {
  using E = typename S::Eight;
  const typename E::F scale = E::splat(job.scale * 1.44269504088896341F);
  for (int lane = 0; lane < S::kWidth; lane += 8) {
    for (int64_t d = 0; d < s.depth; d += 8) {
      const int columns = job.depth - d < 8 ? static_cast<int>(job.depth - d) : 8;
      typename E::F rows[8];
      for (int i = 0; i < 8; ++i) {
        const float* const q = job.q + (first + lane + i) * job.q_stride + d;
        rows[i] = lane + i >= count ? E::splat(0.0F) : columns == 8 ? E::load(q) : load_some<E>(q, columns);
        rows[i] = E::mul(rows[i], scale);
      }
      E::transpose(rows);
      for (int i = 0; i < 8; ++i) {
        E::store(s.queries + (d + i) * S::kWidth + lane, rows[i]);
      }
    }
  }
}

// mixed / sum, turned back into rows.
template <typename S>
void finish_queries(const AttentionBlock& job, const AttentionScratch<S>& s, int64_t first, int count,
                    const typename S::F& sum) {
  using E = typename S::Eight;
  for (int64_t d = 0; d < s.depth; ++d) {
    S::store(s.mixed + d * S::kWidth, S::div(S::load(s.mixed + d * S::kWidth), sum));
  }
  for (int lane = 0; lane < count; lane += 8) {
    for (int64_t d = 0; d < job.depth; d += 8) {
      const int columns = job.depth - d < 8 ? static_cast<int>(job.depth - d) : 8;
      typename E::F rows[8];
      for (int i = 0; i < 8; ++i) {
        rows[i] = E::load(s.mixed + (d + i) * S::kWidth + lane);
      }
      E::transpose(rows);
      for (int i = 0; i < 8 && lane + i < count; ++i) {
        float* const out = job.out + (first + lane + i) * job.q_stride + d;
        columns == 8 ? E::store(out, rows[i]) : store_some<E>(out, rows[i], columns);
      }
    }
  }
}

template <typename S>
void attend_queries(const AttentionBlock& job, const AttentionScratch<S>& s, int64_t first, int count) {
  using F = typename S::F;
  turn_queries<S>(job, s, first, count);
  for (int64_t d = 0; d < s.depth; ++d) {
    S::store(s.mixed + d * S::kWidth, S::splat(0.0F));
  }
  F maximum = S::splat(-3.0e38F);
  F sum = S::splat(0.0F);
  for (int64_t start = 0; start < job.keys; start += kAttentionKeys) {
    const int keys = static_cast<int>(job.keys - start < kAttentionKeys ? job.keys - start : kAttentionKeys);
    const float* const packed = s.keys + start * s.depth;
    F most = maximum;
    int j = 0;
    for (; j + kAttentionTile <= keys; j += kAttentionTile) {
      most = score_keys<S, kAttentionTile>(s, packed + j * s.depth, s.scores + j * S::kWidth, most);
    }
    for (; j < keys; ++j) {
      most = score_keys<S, 1>(s, packed + j * s.depth, s.scores + j * S::kWidth, most);
    }
    const F rescale = exp2_of_negative<S>(S::sub(maximum, most));
    maximum = most;
    sum = soften<S>(s.scores, keys, maximum, S::mul(sum, rescale));
    mix_values<S>(s, s.values + start * s.depth, keys, rescale);
  }
  // NaN where a score was NaN or infinite, zero elsewhere.
  const F spoiled = S::sub(maximum, maximum);
  finish_queries<S>(job, s, first, count, S::add(sum, spoiled));
}

template <typename S>
void attention(const AttentionBlock& job) {
  const AttentionScratch<S> s(job.scratch, job.keys, job.depth);
  pack_rows<S>(job.k, job.kv_stride, job.keys, job.depth, s.depth, s.keys);
  pack_rows<S>(job.v, job.kv_stride, job.keys, job.depth, s.depth, s.values);
  for (int64_t first = 0; first < job.queries; first += S::kWidth) {
    const int count = static_cast<int>(job.queries - first < S::kWidth ? job.queries - first : S::kWidth);
    attend_queries<S>(job, s, first, count);
  }
}

}  // namespace modiff
