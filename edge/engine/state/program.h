// One .pte: opened once, its constants read once, its weights shared by every slot.
//
// The program has a method step(x float32 [1, C, H, W], i int64 [1], first int64 [1], noise like x where draws_noise is
// 1, then any conditions float32 or int64) -> float32 [1, C, H, W] and the constant methods steps, initial_sigma,
// start_coefficients, draws_noise, program_format and, where images can be told from strange ones, novelty_mean and
// novelty_whitening. Of step's two planned arenas the second holds every mutable
// buffer: the step state of one job.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <executorch/extension/data_loader/mmap_data_loader.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>

#include "image/novelty.h"
#include "state/load_status.h"
#include "state/memory.h"

namespace modiff {

// Alpha and sigma of the marginal at the input of a step: x_i = alpha * image + sigma * noise.
struct StartCoefficients {
  float alpha;
  float sigma;
};

// An input of step that stays the same over a job.
struct ConditionFacts {
  bool is_float;  // float32, else int64
  std::vector<int32_t> sizes;
  size_t bytes;
};

struct ProgramFacts {
  int64_t steps = 0;
  int32_t channels = 0;
  int32_t height = 0;
  int32_t width = 0;
  float initial_sigma = 0.0F;
  std::vector<StartCoefficients> start_coefficients;  // [steps]
  bool draws_noise = false;
  NoveltyTable novelty;  // empty where calibration saw too few images
  std::vector<ConditionFacts> conditions;  // in the order of step's inputs
  size_t condition_bytes = 0;              // of all of them
  size_t activation_bytes = 0;
  size_t state_bytes = 0;
  size_t program_bytes = 0;

  size_t pixels() const { return static_cast<size_t>(height) * static_cast<size_t>(width); }
  size_t values() const { return static_cast<size_t>(channels) * pixels(); }
};

class LoadedProgram {
 public:
  static constexpr int64_t kFormat = 2;

  // Opens and checks the file, reads the constants and makes sure that `step` loads. Logs what is wrong.
  LoadStatus open(const char* path);

  const ProgramFacts& facts() const { return facts_; }
  const executorch::runtime::Program& program() const { return *program_; }
  Region& activations() { return activations_; }
  // Temporaries of operators; reset by the runtime after each of them.
  GrowingAllocator& temporaries() { return temporaries_; }

 private:
  LoadStatus read_constants();
  LoadStatus read_step();
  LoadStatus read_novelty();
  LoadStatus read_conditions(const executorch::runtime::MethodMeta& meta, size_t first);
  LoadStatus try_loading_step();

  std::optional<executorch::extension::MmapDataLoader> loader_;
  std::optional<executorch::runtime::Program> program_;
  ProgramFacts facts_;
  Region activations_;
  GrowingAllocator temporaries_;
};

}  // namespace modiff
