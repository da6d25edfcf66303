// One slot: the step state of one job, and how far that job is.
#pragma once

#include <cstdint>
#include <vector>

#include "job/failure.h"
#include "modulated/statistics.h"
#include "state/program.h"
#include "state/step_method.h"

namespace modiff {

// What all slots share.
struct SlotPool {
  LoadedProgram* program;
  uint8_t program_id[32];
  size_t state_budget;  // bytes
  size_t state_in_use;  // bytes
};

struct JobStart {
  uint64_t seed;
  uint32_t start;
  bool has_image;
  std::vector<float> image;  // [C, H, W], empty without one
  std::vector<uint8_t> conditions;  // all of them, in the program's order
};

struct StepReport {
  uint32_t step;
  uint32_t steps_left;
  uint64_t nanoseconds;
  StepStatistics statistics;
};

struct JobResult {
  bool has_map;
  float score;
  bool has_novelty;
  float novelty;
  std::vector<float> x;    // [C, H, W]
  std::vector<float> map;  // [H, W], empty without an image
};

class Slot {
 public:
  explicit Slot(SlotPool* pool) : pool_(pool) {}

  // Checks the job, then resets the slot to it; a refused job leaves the slot as it was.
  Failure begin(JobStart job);
  // Runs the next step. A failure ends the job.
  Failure step(StepReport* report);
  Failure result(JobResult* result) const;
  // The job's image as it stands, [C, H, W]; valid until the slot changes.
  Failure look(const std::vector<float>** x) const;
  Failure snapshot(std::vector<uint8_t>* blob) const;
  // Checks the blob before anything is overwritten.
  Failure restore(const uint8_t* blob, size_t size);
  void release();

 private:
  Failure acquire_state();
  Failure check(const JobStart& job) const;
  void set_start_image(const JobStart& job);

  SlotPool* pool_;
  StepMethod method_;
  bool active_ = false;
  uint64_t seed_ = 0;
  uint32_t start_ = 0;
  uint32_t next_step_ = 0;
  std::vector<float> x_;
  std::vector<float> image_;
  std::vector<float> noise_;  // of the running step, empty where the sampler draws none
  std::vector<uint8_t> conditions_;
};

}  // namespace modiff
