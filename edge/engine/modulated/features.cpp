#include "modulated/features.h"

#include <algorithm>
#include <cstring>

#include "modulated/refreshes.h"

namespace modiff {
namespace {

// Elements that one task copies or combines.
constexpr int64_t kTaskElements = 16384;

void normalize_row(const PreparedPrologue& input, int64_t channels, int64_t image, int64_t position, int64_t width,
                   int64_t upsample, const KernelSet& kernels, float* out) {
  if (input.is_elementwise() && input.seam() == channels && upsample == 1) {
    PrologueRows rows = input.rows(image, position, 1, 0, channels);
    rows.channels *= width;
    kernels.prologue(rows, out, 0);
    return;
  }
  for (int64_t first = 0; first < channels;) {
    const int64_t end = first < input.seam() ? std::min(channels, input.seam()) : channels;
    kernels.prologue(input.rows(image, position, width, first, end - first), out + first, upsample * channels);
    first = end;
  }
  if (upsample == 1) {
    return;
  }
  const size_t bytes = static_cast<size_t>(channels) * sizeof(float);
  for (int64_t x = 0; x < width * upsample; x += upsample) {
    for (int64_t i = 1; i < upsample; ++i) {
      std::memcpy(out + (x + i) * channels, out + x * channels, bytes);
    }
  }
  const int64_t row = width * upsample * channels;
  for (int64_t i = 1; i < upsample; ++i) {
    std::memcpy(out + i * row, out, static_cast<size_t>(row) * sizeof(float));
  }
}

template <typename Function>
void for_pieces(Parallel& parallel, int64_t count, Function function) {
  for_each(parallel, (count + kTaskElements - 1) / kTaskElements, [&](int64_t task) {
    const int64_t first = task * kTaskElements;
    function(first, static_cast<size_t>(std::min(kTaskElements, count - first)));
  });
}

void copy(const float* from, float* to, int64_t count, Parallel& parallel) {
  for_pieces(parallel, count, [&](int64_t first, size_t size) {
    std::memcpy(to + first, from + first, size * sizeof(float));
  });
}

}  // namespace

bool normalize(const Prologue& prologue, int64_t width, int64_t upsample, const KernelSet& kernels, Parallel& parallel,
               Scratch& scratch, float* out) {
  PreparedPrologue input;
  if (!input.prepare(prologue, kernels, parallel, scratch)) {
    return false;
  }
  const int64_t channels = prologue.channels();
  const int64_t height = prologue.positions / width;
  for_each(parallel, prologue.images * height, [&](int64_t row) {
    float* place = out + row * width * channels * upsample * upsample;
    normalize_row(input, channels, row / height, (row % height) * width, width, upsample, kernels, place);
  });
  return true;
}

bool attend(const Attention& a, const KernelSet& kernels, Parallel& parallel, Scratch& scratch) {
  const int64_t channels = a.heads * a.depth;
  const int64_t blocks = (a.queries + kMostAttentionLanes - 1) / kMostAttentionLanes;
  const int64_t all = a.images * a.heads * blocks;
  // Runs of query blocks, each with scratch of its own; how many there are changes no result.
  const int64_t workers = std::min<int64_t>(all, parallel.threads());
  const size_t each = (attention_scratch(a.keys, a.depth) + 15) & ~size_t{15};
  float* memory = scratch.allocate<float>(static_cast<size_t>(workers) * each);
  if (memory == nullptr) {
    return false;
  }
  for_each(parallel, workers, [&](int64_t worker) {
    const int64_t end = all * (worker + 1) / workers;
    for (int64_t next = all * worker / workers; next < end;) {
      // As many blocks of one head as the run has.
      const int64_t head = next / blocks;
      const int64_t last = std::min(end, (head + 1) * blocks);
      const int64_t first_query = (next - head * blocks) * kMostAttentionLanes;
      const int64_t image = head / a.heads;
      const int64_t channel = head % a.heads * a.depth;
      const int64_t query = (image * a.queries + first_query) * channels + channel;
      AttentionBlock block = {};
      block.q = a.q + query;
      block.k = a.k + image * a.keys * channels + channel;
      block.v = a.v + image * a.keys * channels + channel;
      block.out = a.out + query;
      block.q_stride = channels;
      block.kv_stride = channels;
      block.queries = std::min((last - head * blocks) * kMostAttentionLanes, a.queries) - first_query;
      block.keys = a.keys;
      block.depth = a.depth;
      block.scale = a.scale;
      block.scratch = memory + static_cast<size_t>(worker) * each;
      kernels.attention(block);
      next = last;
    }
  });
  return true;
}

void pairwise(const Pairwise& job, PairFunction function, Parallel& parallel) {
  const int64_t image_size = job.positions * job.channels;
  if (!job.b_is_vector) {
    for_pieces(parallel, job.images * image_size, [&](int64_t first, size_t size) {
      function(job.a + first, job.b + first, size, job.out + first);
    });
    return;
  }
  for_each(parallel, job.images * job.positions, [&](int64_t row) {
    const float* vector = job.b + (job.b_per_image ? row / job.positions * job.channels : 0);
    const int64_t first = row * job.channels;
    function(job.a + first, vector, static_cast<size_t>(job.channels), job.out + first);
  });
}

void reuse(const ReusePoint& point, int64_t step, const KernelSet& kernels, Parallel& parallel) {
  int32_t* counters = point.counters;
  if (is_fresh(counters) || point.kind == 0) {
    if (!is_fresh(counters) && point.history != nullptr) {
      copy(point.held, point.history, point.count, parallel);
    }
    copy(point.x, point.held, point.count, parallel);
    count_refresh(counters, step);
    copy(point.x, point.out, point.count, parallel);
    return;
  }
  if (point.kind == 1 || !can_extrapolate(counters) || point.history == nullptr) {
    copy(point.held, point.out, point.count, parallel);
    return;
  }
  const float share = extrapolated_share(counters, step);
  for_pieces(parallel, point.count, [&](int64_t first, size_t size) {
    kernels.extrapolate(point.held + first, point.history + first, share, size, point.out + first);
  });
}

}  // namespace modiff
