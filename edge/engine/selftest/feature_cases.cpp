#include "modulated/features.h"
#include "modulated/permute.h"
#include "modulated/refreshes.h"
#include "selftest/cases.h"
#include "selftest/stream.h"

namespace selftest {

void run_normalize_case(const modiff::KernelSet& kernels) {
  struct Header {
    int64_t images, height, width, x_channels, skip_channels, upsample, norm, groups, weight_rows, bias_rows, activation;
    double eps;
  };
  const Header h = read_value<Header>();
  modiff::Prologue p;
  p.images = h.images;
  p.positions = h.height * h.width;
  p.x_channels = h.x_channels;
  p.skip_channels = h.skip_channels;
  p.norm = static_cast<modiff::Norm>(h.norm);
  p.groups = h.groups;
  p.eps = static_cast<float>(h.eps);
  p.activation = static_cast<modiff::Activation>(h.activation);
  const auto weight = read_values<float>(h.weight_rows * p.channels());
  const auto bias = read_values<float>(h.bias_rows * p.channels());
  p.weight = vector_of(weight, h.weight_rows);
  p.bias = vector_of(bias, h.bias_rows);
  const auto x = read_values<float>(h.images * p.positions * h.x_channels);
  const auto skip = read_values<float>(h.images * p.positions * h.skip_channels);
  p.x = x.data();
  p.skip = h.skip_channels > 0 ? skip.data() : nullptr;
  if (!modiff::is_sound(p)) {
    quit("a prologue's sizes do not belong together");
  }
  std::vector<float> out(static_cast<size_t>(h.images * p.positions * p.channels() * h.upsample * h.upsample));
  HeapScratch scratch;
  modiff::Serial serial;
  if (!modiff::normalize(p, h.width, h.upsample, kernels, serial, scratch, out.data())) {
    quit("no memory");
  }
  write_values(out);
}

void run_attention_case(const modiff::KernelSet& kernels) {
  struct Header {
    int64_t images, queries, keys, heads, depth, threads;
    double scale;
  };
  const Header h = read_value<Header>();
  const int64_t channels = h.heads * h.depth;
  const auto q = read_values<float>(h.images * h.queries * channels);
  const auto k = read_values<float>(h.images * h.keys * channels);
  const auto v = read_values<float>(h.images * h.keys * channels);
  std::vector<float> out(q.size());
  const modiff::Attention attention = {q.data(), k.data(), v.data(), out.data(), h.images, h.queries,
                                       h.keys,   h.heads,  h.depth,  static_cast<float>(h.scale)};
  HeapScratch scratch;
  Threads threads(static_cast<int>(h.threads));
  if (!modiff::attend(attention, kernels, threads, scratch)) {
    quit("no memory");
  }
  write_values(out);
}

void run_reuse_case(const modiff::KernelSet& kernels) {
  const int64_t count = read_value<int64_t>();
  const int64_t steps = read_value<int64_t>();
  const auto table = read_values<int8_t>(steps);
  std::vector<float> held(static_cast<size_t>(count));
  std::vector<float> history(held.size());
  std::vector<float> out(held.size());
  std::vector<int32_t> counters(modiff::kCounters);
  modiff::Serial serial;
  for (int64_t step = 0; step < steps; ++step) {
    const auto x = read_values<float>(count);
    const modiff::ReusePoint point = {x.data(),        held.data(), history.data(),
                                      counters.data(), table[static_cast<size_t>(step)],
                                      count,           out.data()};
    modiff::reuse(point, step, kernels, serial);
    write_values(out);
  }
}

void run_permute_case() {
  const int64_t rank = read_value<int64_t>();
  const auto sizes = read_values<int64_t>(rank);
  const auto order = read_values<int64_t>(rank);
  int64_t count = 1;
  for (const int64_t size : sizes) {
    count *= size;
  }
  const auto x = read_values<float>(count);
  std::vector<float> out(x.size());
  modiff::Permutation permutation;
  const bool bound = modiff::bind_permutation(sizes.data(), order.data(), static_cast<int>(rank), &permutation);
  write_value<uint32_t>(bound ? 1 : 0);
  if (bound) {
    modiff::permute(permutation, x.data(), out.data());
    write_values(out);
  }
}

}  // namespace selftest
