#include "job/slot.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <utility>

#include "image/inspection.h"
#include "job/noise.h"
#include "image/novelty.h"
#include "job/snapshot.h"
#include "ops/operators.h"

namespace modiff {
namespace {

// The float32 conditions among the bytes; integers are any.
bool conditions_finite(const ProgramFacts& facts, const std::vector<uint8_t>& bytes) {
  size_t offset = 0;
  for (const ConditionFacts& condition : facts.conditions) {
    for (size_t i = 0; condition.is_float && i < condition.bytes; i += sizeof(float)) {
      float value;
      std::memcpy(&value, bytes.data() + offset + i, sizeof(value));
      if (!std::isfinite(value)) {
        return false;
      }
    }
    offset += condition.bytes;
  }
  return true;
}

bool all_finite(const std::vector<float>& values) {
  for (const float value : values) {
    if (!std::isfinite(value)) {
      return false;
    }
  }
  return true;
}

uint64_t now_nanoseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

SnapshotExpectation expectation(const SlotPool& pool) {
  const ProgramFacts& facts = pool.program->facts();
  return {pool.program_id, static_cast<uint32_t>(facts.steps), facts.values(), facts.condition_bytes,
          facts.state_bytes};
}

}  // namespace

Failure Slot::acquire_state() {
  if (method_.loaded()) {
    return {};
  }
  const size_t wanted = pool_->program->facts().state_bytes;
  if (wanted > pool_->state_budget || pool_->state_in_use > pool_->state_budget - wanted) {
    return {Code::kNoMemory, "the slot's state does not fit the state budget"};
  }
  switch (method_.load(*pool_->program)) {
    case LoadStatus::kOk:
      pool_->state_in_use += wanted;
      return {};
    case LoadStatus::kNoMemory:
      return {Code::kNoMemory, "no memory for the slot's state"};
    default:
      return {Code::kOperatorFailed, "the method step does not load"};
  }
}

Failure Slot::check(const JobStart& job) const {
  const ProgramFacts& facts = pool_->program->facts();
  if (job.has_image && job.image.size() != facts.values()) {
    return {Code::kImageSize, "the image has another size than the program's"};
  }
  if (job.conditions.size() != facts.condition_bytes) {
    return {Code::kConditionSize, "the conditions have another size than the program's"};
  }
  if (job.has_image ? job.start >= static_cast<uint64_t>(facts.steps) : job.start != 0) {
    return {Code::kStartOutOfRange, job.has_image ? "start is not a step of the program"
                                                  : "a job without an image starts at step 0"};
  }
  if (!all_finite(job.image) || !conditions_finite(facts, job.conditions)) {
    return {Code::kNotFinite, "the image or a condition has a NaN or an infinity"};
  }
  return {};
}

Failure Slot::begin(JobStart job) {
  Failure failure = check(job);
  if (failure.failed()) {
    return failure;
  }
  failure = acquire_state();
  if (failure.failed()) {
    return failure;
  }
  method_.state().clear();
  x_.resize(pool_->program->facts().values());
  set_start_image(job);
  image_ = std::move(job.image);
  conditions_ = std::move(job.conditions);
  seed_ = job.seed;
  start_ = job.start;
  next_step_ = job.start;
  active_ = true;
  return {};
}

void Slot::set_start_image(const JobStart& job) {
  const ProgramFacts& facts = pool_->program->facts();
  fill_noise(job.seed, 0, x_.size(), x_.data());
  if (!job.has_image) {
    for (float& value : x_) {
      value = facts.initial_sigma * value;
    }
    return;
  }
  const StartCoefficients at = facts.start_coefficients[job.start];
  for (size_t i = 0; i < x_.size(); ++i) {
    const float signal = at.alpha * job.image[i];
    const float noise = at.sigma * x_[i];
    x_[i] = signal + noise;
  }
}

Failure Slot::step(StepReport* report) {
  const ProgramFacts& facts = pool_->program->facts();
  if (!active_ || next_step_ >= facts.steps) {
    return {Code::kNotReady, active_ ? "the job is finished" : "the slot is empty"};
  }
  step_statistics() = {};
  const uint64_t begin = now_nanoseconds();
  if (facts.draws_noise) {
    noise_.resize(x_.size());
    fill_noise(seed_, next_step_ + uint64_t{1}, noise_.size(), noise_.data());
  }
  const StepInputs inputs = {next_step_, next_step_ == start_, noise_.data(), conditions_.data()};
  const auto error = method_.run(facts, inputs, x_.data());
  report->nanoseconds = now_nanoseconds() - begin;
  if (error != executorch::runtime::Error::Ok) {
    release();
    const bool memory = error == executorch::runtime::Error::MemoryAllocationFailed;
    return {memory ? Code::kNoMemory : Code::kOperatorFailed, "an operator of the step failed"};
  }
  if (!all_finite(x_)) {
    release();
    return {Code::kOutputNotFinite, "the step's output has a NaN or an infinity"};
  }
  report->step = next_step_;
  ++next_step_;
  report->steps_left = static_cast<uint32_t>(facts.steps) - next_step_;
  report->statistics = step_statistics();
  return {};
}

Failure Slot::result(JobResult* result) const {
  const ProgramFacts& facts = pool_->program->facts();
  if (!active_ || next_step_ < facts.steps) {
    return {Code::kNotReady, active_ ? "the job has steps left" : "the slot is empty"};
  }
  result->x = x_;
  result->has_map = !image_.empty();
  result->score = 0.0F;
  result->map.assign(result->has_map ? facts.pixels() : 0, 0.0F);
  result->has_novelty = result->has_map && facts.novelty.known();
  result->novelty = 0.0F;
  if (result->has_map) {
    result->score =
        anomaly_map(x_.data(), image_.data(), facts.channels, facts.height, facts.width, result->map.data());
  }
  if (result->has_novelty) {
    result->novelty = novelty(facts.novelty, image_.data(), facts.channels, facts.height, facts.width);
  }
  return {};
}

Failure Slot::look(const std::vector<float>** x) const {
  if (!active_) {
    return {Code::kNotReady, "the slot is empty"};
  }
  *x = &x_;
  return {};
}

Failure Slot::snapshot(std::vector<uint8_t>* blob) const {
  if (!active_) {
    return {Code::kNotReady, "the slot is empty"};
  }
  SnapshotView view = {};
  view.seed = seed_;
  view.start = start_;
  view.next_step = next_step_;
  view.steps = static_cast<uint32_t>(pool_->program->facts().steps);
  view.has_image = !image_.empty();
  view.x = reinterpret_cast<const uint8_t*>(x_.data());
  view.image = reinterpret_cast<const uint8_t*>(image_.data());
  view.conditions = conditions_.data();
  view.state = method_.state().data();
  write_snapshot(view, expectation(*pool_), blob);
  return {};
}

Failure Slot::restore(const uint8_t* blob, size_t size) {
  SnapshotView view = {};
  Failure failure = read_snapshot(blob, size, expectation(*pool_), &view);
  if (failure.failed()) {
    return failure;
  }
  failure = acquire_state();
  if (failure.failed()) {
    return failure;
  }
  const size_t values = pool_->program->facts().values();
  x_.resize(values);
  std::memcpy(x_.data(), view.x, values * sizeof(float));
  image_.resize(view.has_image ? values : 0);
  if (view.has_image) {
    std::memcpy(image_.data(), view.image, values * sizeof(float));
  }
  conditions_.assign(view.conditions, view.conditions + pool_->program->facts().condition_bytes);
  if (method_.state().size() > 0) {
    std::memcpy(method_.state().data(), view.state, method_.state().size());
  }
  seed_ = view.seed;
  start_ = view.start;
  next_step_ = view.next_step;
  active_ = true;
  return {};
}

void Slot::release() {
  if (method_.loaded()) {
    pool_->state_in_use -= pool_->program->facts().state_bytes;
  }
  method_.unload();
  active_ = false;
  x_ = {};
  image_ = {};
  noise_ = {};
  conditions_ = {};
}

}  // namespace modiff
