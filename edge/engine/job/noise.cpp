#include "job/noise.h"

#include <cmath>

#include "floats/elementary.h"

namespace modiff {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr uint64_t kMultiplier0 = 0xD2E7470EE14C6C93U;
constexpr uint64_t kMultiplier1 = 0xCA5A826395121157U;
constexpr uint64_t kWeyl0 = 0x9E3779B97F4A7C15U;
constexpr uint64_t kWeyl1 = 0xBB67AE8584CAA73BU;
constexpr int kRounds = 10;
constexpr double kTwoPi = 6.283185307179586476925286766559;

// Uniform in (0, 1): the middle of one of 2^53 intervals.
double uniform(uint64_t raw) { return (static_cast<double>(raw >> 11) + 0.5) * 0x1p-53; }

}  // namespace

void Philox::refill() {
  ++counter_;  // numpy counts before it draws; 2^64 blocks are never reached
  uint64_t c[4] = {counter_, 0, 0, 0};
  uint64_t key0 = key_[0];
  uint64_t key1 = key_[1];
  for (int round = 0; round < kRounds; ++round) {
    const Wide product0 = static_cast<Wide>(kMultiplier0) * c[0];
    const Wide product1 = static_cast<Wide>(kMultiplier1) * c[2];
    const uint64_t c0 = static_cast<uint64_t>(product1 >> 64) ^ c[1] ^ key0;
    const uint64_t c2 = static_cast<uint64_t>(product0 >> 64) ^ c[3] ^ key1;
    c[0] = c0;
    c[1] = static_cast<uint64_t>(product1);
    c[2] = c2;
    c[3] = static_cast<uint64_t>(product0);
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  for (int i = 0; i < 4; ++i) {
    block_[i] = c[i];
  }
  used_ = 0;
}

uint64_t Philox::next() {
  if (used_ == 4) {
    refill();
  }
  return block_[used_++];
}

void fill_noise(uint64_t seed, uint64_t draw, size_t count, float* out) {
  Philox philox(seed, draw);
  for (size_t i = 0; i < count; i += 2) {
    const double u1 = uniform(philox.next());
    const double u2 = uniform(philox.next());
    const double radius = std::sqrt(-2.0 * fixed_log(u1));
    const SineCosine direction = fixed_sine_cosine(kTwoPi * u2);
    out[i] = static_cast<float>(radius * direction.cosine);
    if (i + 1 < count) {
      out[i + 1] = static_cast<float>(radius * direction.sine);
    }
  }
}

}  // namespace modiff
