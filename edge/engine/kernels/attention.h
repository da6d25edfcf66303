// Attention of some queries of one head over all its keys: a vector holds one query a lane, so that scores, the running
// maximum and sum (online softmax: Milakov and Gimelshein, 2018) and the outputs never cross lanes, and how many lanes
// there are changes no bit. Keys are met in blocks of kAttentionKeys, in tiles of eight; sums are chains of fused products.
#pragma once

#include <cstring>

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

// Scores of `Keys` keys of a packed tile: [Keys][lanes]; returns the largest of them and `most`.
template <typename S, int Keys>
MODIFF_INLINE typename S::F score_keys(const float* queries, int64_t depth, const float* keys, float* scores,
                                       typename S::F most) {
  typename S::F sums[Keys];
  typename S::Quad rows[Keys];
  const auto next_quads = [&] {
    for (int i = 0; i < Keys; ++i) {
      rows[i] = S::load_quad(keys + 4 * i);
    }
    keys += 4 * kAttentionTile;
  };
  next_quads();
  add_quads<S, Keys, true>(rows, queries, sums);
  for (int64_t d = 4; d < depth; d += 4) {
    queries += 4 * S::kWidth;
    next_quads();
    add_quads<S, Keys, false>(rows, queries, sums);
  }
  for (int i = 0; i < Keys; ++i) {
    most = S::max(sums[i], most);
    S::store(scores + i * S::kWidth, sums[i]);
  }
  return most;
}

// Scores of a block of keys; returns the largest of them and `most`.
template <typename S>
typename S::F score_block(const float* queries, int64_t depth, const float* keys, int count, float* scores,
                          typename S::F most) {
  for (; count >= kAttentionTile; count -= kAttentionTile) {
    most = score_keys<S, kAttentionTile>(queries, depth, keys, scores, most);
    keys += kAttentionTile * depth;
    scores += kAttentionTile * S::kWidth;
  }
  for (; count > 0; --count, keys += 4, scores += S::kWidth) {
    most = score_keys<S, 1>(queries, depth, keys, scores, most);
  }
  return most;
}

// scores = 2^(scores - maximum); returns `sum` and what they add, ascending.
template <typename S>
typename S::F soften(float* scores, int keys, const typename S::F& maximum, typename S::F sum) {
  const Exp2OfNegative<S> exp2;
  for (float* const end = scores + keys * S::kWidth; scores != end; scores += S::kWidth) {
    const typename S::F p = exp2(S::sub(S::load(scores), maximum));
    S::store(scores, p);
    sum = S::add(sum, p);
  }
  return sum;
}

// mixed[d] = mixed[d] * rescale + the values' column d, weighted: eight columns at a time.
template <typename S>
void mix_values(const float* scores, int keys, const float* values, int64_t depth, const typename S::F& rescale,
                float* mixed) {
  const float* const end = scores + keys * S::kWidth;
  for (int64_t d = 0; d < depth; d += kAttentionTile, mixed += kAttentionTile * S::kWidth) {
    typename S::F sums[kAttentionTile];
    for (int i = 0; i < kAttentionTile; ++i) {
      sums[i] = S::mul(S::load(mixed + i * S::kWidth), rescale);
    }
    const float* value = values + d;
    for (const float* weight = scores; weight != end; weight += S::kWidth, value += depth) {
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

// Keys in tiles of kAttentionTile, four numbers of each at a time: [tiles][depth / 4][kAttentionTile][4].
inline void pack_keys(const AttentionBlock& job, int64_t padded, float* packed) {
  const int64_t tile = kAttentionTile * padded;
  for (int64_t key = 0; key < job.keys; ++key) {
    const float* const row = job.k + key * job.kv_stride;
    float* to = packed + key / kAttentionTile * tile + key % kAttentionTile * 4;
    int64_t d = 0;
    for (; d + 4 <= job.depth; d += 4, to += 4 * kAttentionTile) {
      std::memcpy(to, row + d, 4 * sizeof(float));
    }
    for (; d < padded; d += 4, to += 4 * kAttentionTile) {
      for (int i = 0; i < 4; ++i) {
        to[i] = d + i < job.depth ? row[d + i] : 0.0F;
      }
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
    const F most = score_block<S>(s.queries, s.depth, s.keys + start * s.depth, keys, s.scores, maximum);
    const F rescale = Exp2OfNegative<S>()(S::sub(maximum, most));
    maximum = most;
    sum = soften<S>(s.scores, keys, maximum, S::mul(sum, rescale));
    mix_values<S>(s.scores, keys, s.values + start * s.depth, s.depth, rescale, s.mixed);
  }
  // NaN where a score was NaN or infinite, zero elsewhere.
  const F spoiled = S::sub(maximum, maximum);
  finish_queries<S>(job, s, first, count, S::add(sum, spoiled));
}

template <typename S>
void attention(const AttentionBlock& job) {
  const AttentionScratch<S> s(job.scratch, job.keys, job.depth);
  pack_keys(job, s.depth, s.keys);
  pack_rows<S>(job.v, job.kv_stride, job.keys, job.depth, s.depth, s.values);
  for (int64_t first = 0; first < job.queries; first += S::kWidth) {
    const int count = static_cast<int>(job.queries - first < S::kWidth ? job.queries - first : S::kWidth);
    attend_queries<S>(job, s, first, count);
  }
}

}  // namespace modiff
