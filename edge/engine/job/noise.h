// Seeded Gaussian noise, the same stream as calib.noise: Philox4x64-10 counted as numpy counts, then Box-Muller.
#pragma once

#include <cstddef>
#include <cstdint>

namespace modiff {

// The raw 64-bit stream of numpy.random.Philox(key=[seed, draw]) (Salmon et al., SC 2011, "Parallel random numbers: as
// easy as 1, 2, 3").
class Philox {
 public:
  Philox(uint64_t seed, uint64_t draw) : key_{seed, draw} {}
  uint64_t next();

 private:
  void refill();

  uint64_t key_[2];
  uint64_t counter_ = 0;
  uint64_t block_[4] = {};
  int used_ = 4;
};

// Fills `out` with `count` standard normal values in the stream's order. Draw 0 is what a job starts from, draw i + 1
// what step i adds.
void fill_noise(uint64_t seed, uint64_t draw, size_t count, float* out);

}  // namespace modiff
