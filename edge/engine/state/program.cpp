#include "state/program.h"

#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <utility>

#include "state/constants.h"
#include "state/step_method.h"

namespace modiff {
namespace {

using executorch::aten::ScalarType;
using executorch::extension::MmapDataLoader;
using executorch::runtime::Error;
using executorch::runtime::MethodMeta;
using executorch::runtime::Program;
using executorch::runtime::TensorInfo;

constexpr int64_t kMostSteps = 100000;
constexpr size_t kArenas = 2;
constexpr size_t kScalarInputs = 3;  // x, i, first
constexpr size_t kMostConditions = 16;
constexpr size_t kMostConditionBytes = size_t{16} << 20;

LoadStatus complain(const char* what) {
  std::fprintf(stderr, "modiff-engine: program: %s\n", what);
  return LoadStatus::kUnreadable;
}

bool is_scalar_input(const MethodMeta& meta, size_t index) {
  const auto info = meta.input_tensor_meta(index);
  return info.ok() && info->scalar_type() == ScalarType::Long && info->nbytes() == sizeof(int64_t);
}

bool is_image(const executorch::runtime::Result<TensorInfo>& info) {
  return info.ok() && info->scalar_type() == ScalarType::Float && info->sizes().size() == 4 && info->sizes()[0] == 1 &&
         info->is_memory_planned();
}

}  // namespace

LoadStatus LoadedProgram::open(const char* path) {
  auto loader = MmapDataLoader::from(path, MmapDataLoader::MlockConfig::NoMlock);
  if (!loader.ok()) {
    return complain("cannot open the file");
  }
  loader_.emplace(std::move(loader.get()));
  const auto size = loader_->size();
  facts_.program_bytes = size.ok() ? size.get() : 0;
  auto program = Program::load(&loader_.value(), Program::Verification::InternalConsistency);
  if (!program.ok()) {
    return complain("not a program of this runtime");
  }
  program_.emplace(std::move(program.get()));
  for (const auto read : {&LoadedProgram::read_constants, &LoadedProgram::read_step, &LoadedProgram::read_novelty}) {
    const LoadStatus status = (this->*read)();
    if (status != LoadStatus::kOk) {
      return status;
    }
  }
  return try_loading_step();
}

LoadStatus LoadedProgram::read_constants() {
  int64_t format = 0;
  int64_t draws_noise = 0;
  std::vector<float> sigma;
  std::vector<float> coefficients;
  for (const LoadStatus status :
       {read_integer(*program_, "program_format", &format), read_integer(*program_, "steps", &facts_.steps),
        read_integer(*program_, "draws_noise", &draws_noise), read_floats(*program_, "initial_sigma", &sigma),
        read_floats(*program_, "start_coefficients", &coefficients)}) {
    if (status != LoadStatus::kOk) {
      complain("a constant method is missing, of the wrong type, or does not run");
      return status;
    }
  }
  if (format != kFormat) {
    return complain("another program_format");
  }
  if (facts_.steps < 1 || facts_.steps > kMostSteps || sigma.size() != 1 || !std::isfinite(sigma[0]) ||
      coefficients.size() != static_cast<size_t>(facts_.steps) * 2) {
    return complain("steps, initial_sigma and start_coefficients do not fit together");
  }
  facts_.draws_noise = draws_noise != 0;
  facts_.initial_sigma = sigma[0];
  for (size_t i = 0; i < coefficients.size(); i += 2) {
    facts_.start_coefficients.push_back({coefficients[i], coefficients[i + 1]});
  }
  return LoadStatus::kOk;
}

LoadStatus LoadedProgram::read_step() {
  const auto meta = program_->method_meta("step");
  if (!meta.ok()) {
    return complain("no method step");
  }
  const size_t inputs = meta->num_inputs();
  const size_t first_condition = kScalarInputs + (facts_.draws_noise ? 1 : 0);
  const auto image = inputs >= first_condition ? meta->input_tensor_meta(0) : Error::InvalidProgram;
  const auto result = meta->num_outputs() == 1 ? meta->output_tensor_meta(0) : Error::InvalidProgram;
  if (!is_image(image) || !is_image(result) || !is_scalar_input(*meta, 1) || !is_scalar_input(*meta, 2) ||
      image->nbytes() != result->nbytes()) {
    return complain("step is not (x float32 [1, C, H, W], i int64 [1], first int64 [1], ...) -> x");
  }
  if (facts_.draws_noise) {
    const auto noise = meta->input_tensor_meta(kScalarInputs);
    if (!is_image(noise) || noise->nbytes() != image->nbytes()) {
      return complain("step's noise is not like x");
    }
  }
  if (read_conditions(*meta, first_condition) != LoadStatus::kOk) {
    return LoadStatus::kUnreadable;
  }
  facts_.channels = image->sizes()[1];
  facts_.height = image->sizes()[2];
  facts_.width = image->sizes()[3];
  if (facts_.channels < 1 || facts_.height < 1 || facts_.width < 1) {
    return complain("an empty image");
  }
  const size_t arenas = meta->num_memory_planned_buffers();
  if (arenas < 1 || arenas > kArenas) {
    return complain("step must plan one arena of activations and one of state");
  }
  facts_.activation_bytes = static_cast<size_t>(meta->memory_planned_buffer_size(0).get());
  facts_.state_bytes = arenas > 1 ? static_cast<size_t>(meta->memory_planned_buffer_size(1).get()) : 0;
  return LoadStatus::kOk;
}

LoadStatus LoadedProgram::read_novelty() {
  if (!program_->method_meta("novelty_mean").ok()) {
    return LoadStatus::kOk;
  }
  NoveltyTable& table = facts_.novelty;
  for (const LoadStatus status : {read_floats(*program_, "novelty_mean", &table.mean),
                                  read_floats(*program_, "novelty_whitening", &table.whitening)}) {
    if (status != LoadStatus::kOk) {
      complain("novelty_mean or novelty_whitening is missing, of the wrong type, or does not run");
      return status;
    }
  }
  const size_t count = novelty_statistics(facts_.channels, facts_.height, facts_.width);
  if (table.mean.size() != count || table.whitening.size() != count * count) {
    return complain("novelty_mean and novelty_whitening do not fit the image");
  }
  return LoadStatus::kOk;
}

LoadStatus LoadedProgram::read_conditions(const MethodMeta& meta, size_t first) {
  for (size_t i = first; i < meta.num_inputs(); ++i) {
    const auto info = meta.input_tensor_meta(i);
    const bool is_float = info.ok() && info->scalar_type() == ScalarType::Float;
    if (!info.ok() || !(is_float || info->scalar_type() == ScalarType::Long)) {
      return complain("a condition is neither float32 nor int64");
    }
    const auto sizes = info->sizes();
    facts_.conditions.push_back({is_float, {sizes.begin(), sizes.end()}, info->nbytes()});
    facts_.condition_bytes += info->nbytes();
    if (facts_.conditions.size() > kMostConditions || facts_.condition_bytes > kMostConditionBytes) {
      return complain("too many conditions, or too large ones");
    }
  }
  return LoadStatus::kOk;
}

// So that a missing operator ends the start and not the first job.
LoadStatus LoadedProgram::try_loading_step() {
  if (!activations_.acquire(facts_.activation_bytes)) {
    std::fprintf(stderr, "modiff-engine: no memory for %zu bytes of activations\n", facts_.activation_bytes);
    return LoadStatus::kNoMemory;
  }
  StepMethod trial;
  const LoadStatus status = trial.load(*this);
  if (status != LoadStatus::kOk) {
    std::fprintf(stderr, "modiff-engine: method step does not load\n");
  }
  return status;
}

}  // namespace modiff
