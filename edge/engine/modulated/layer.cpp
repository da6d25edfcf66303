#include "modulated/layer.h"

#include <cstring>

#include "modulated/delta_plane.h"

namespace modiff {
namespace {

// A pass of either plane.
struct Pass {
  int plane;
  int exponent;
  bool counts_saturation;  // the last main pass of the step
};

class Run {
 public:
  Run(const Layer& layer, const KernelSet& kernels, Parallel& parallel, Scratch& scratch, StepStatistics* statistics)
      : layer_(layer), kernels_(kernels), parallel_(parallel), scratch_(scratch), statistics_(statistics) {}

  bool step(const PlanRow& row, int64_t step) {
    collect_passes(row);
    if (!bind_state() || !prepare()) {
      return false;
    }
    if (row.main.count > 0 && !layer_.direct && !refresh(step)) {
      return false;
    }
    Epilogue epilogue = plain_epilogue();
    epilogue.share = extrapolation(row, step, &epilogue.history);
    epilogue.shift = layer_.shift;
    epilogue.activation = layer_.out_activation;
    epilogue.gate = layer_.gate;
    epilogue.add = layer_.add;
    for (int i = 0; i < pass_count_; ++i) {
      epilogue.out = i + 1 == pass_count_ ? layer_.output : nullptr;
      if (!run_pass(passes_[i], epilogue)) {
        return false;
      }
    }
    epilogue.out = layer_.output;
    return pass_count_ > 0 || walk(nullptr, 0, 0, epilogue);
  }

 private:
  void collect_passes(const PlanRow& row) {
    for (int i = 0; i < row.main.count; ++i) {
      passes_[pass_count_++] = {0, row.main.exponents[i], i + 1 == row.main.count};
    }
    for (int i = 0; i < row.residual.count && layer_.planes > 1; ++i) {
      passes_[pass_count_++] = {1, row.residual.exponents[i], false};
    }
  }

  // Of a direct layer the state is scratch, zero before each step.
  bool bind_state() {
    lattice_ = layer_.lattice;
    accumulator_ = layer_.accumulator;
    if (!layer_.direct) {
      return true;
    }
    const size_t inputs = static_cast<size_t>(layer_.planes * layer_.lattice_elements());
    const size_t outputs = static_cast<size_t>(layer_.planes * layer_.geometry.output_elements());
    lattice_ = scratch_.allocate<int16_t>(inputs);
    accumulator_ = scratch_.allocate<int32_t>(outputs);
    if (lattice_ == nullptr || accumulator_ == nullptr) {
      return false;
    }
    std::memset(lattice_, 0, inputs * sizeof(int16_t));
    std::memset(accumulator_, 0, outputs * sizeof(int32_t));
    return true;
  }

  // Without a pass neither the input nor the plane is needed.
  bool prepare() {
    if (pass_count_ > 0 && (!input_.prepare(layer_.prologue, kernels_, parallel_, scratch_) ||
                            !prepare_plane(layer_.geometry, kernels_, scratch_, &plane_))) {
      return false;
    }
    return walk_.prepare(layer_.geometry, plane_, scratch_);
  }

  // Keeps the output as it stands, before the passes change it, and counts.
  bool refresh(int64_t step) {
    if (layer_.history != nullptr && !is_fresh(layer_.counters)) {
      Epilogue epilogue = plain_epilogue();
      epilogue.out = layer_.history;
      if (!walk(nullptr, 0, 0, epilogue)) {
        return false;
      }
    }
    count_refresh(layer_.counters, step);
    return true;
  }

  Epilogue plain_epilogue() const {
    Epilogue epilogue = {};
    const Geometry& g = layer_.geometry;
    epilogue.residual = layer_.planes > 1 ? accumulator_ + g.output_elements() : nullptr;
    epilogue.scale = layer_.scale;
    epilogue.residual_scale = layer_.planes > 1 ? layer_.scale + g.out_channels : layer_.scale;
    epilogue.bias = layer_.bias;
    return epilogue;
  }

  // The share of the last change, with the output before it in `*history`, which stays nullptr where the output is held.
  float extrapolation(const PlanRow& row, int64_t step, const float** history) const {
    const bool wanted = row.main.count == 0 && row.extrapolates && layer_.history != nullptr && !layer_.direct;
    if (!wanted || !can_extrapolate(layer_.counters)) {
      return 0.0F;
    }
    *history = layer_.history;
    return extrapolated_share(layer_.counters, step);
  }

  bool run_pass(const Pass& pass, const Epilogue& epilogue) {
    const QuantizePass quantize = {layer_.inverse_step, pass.exponent, (1 << (layer_.lattice_bits - 1)) - 1};
    int16_t* lattice = lattice_ + pass.plane * layer_.lattice_elements();
    const auto fill = [&](Part part) {
      return fill_plane(layer_.geometry, layer_.upsample, input_, quantize, kernels_, parallel_, lattice, &plane_, part);
    };
    QuantizeOutcome outcome = fill(Part::kCodes);
    if (outcome.saturated > 0) {
      Epilogue none = epilogue;
      none.out = nullptr;
      if (!multiply(pass, outcome, none)) {
        return false;
      }
      outcome = fill(Part::kSpill);
    }
    statistics_->passes += pass.plane == 0 ? 1 : 0;
    statistics_->residual_passes += pass.plane == 1 ? 1 : 0;
    statistics_->saturated += pass.counts_saturation ? outcome.saturated : 0;
    statistics_->macs += static_cast<uint64_t>(layer_.geometry.macs());
    return multiply(pass, outcome, epilogue);
  }

  // The plane's product with the weights, and the epilogue where it has an output.
  bool multiply(const Pass& pass, const QuantizeOutcome& outcome, const Epilogue& epilogue) {
    const int8_t* weight = outcome.changed ? layer_.weight[pass.plane] : nullptr;
    return (weight == nullptr && epilogue.out == nullptr) || walk(weight, pass.plane, pass.exponent, epilogue);
  }

  bool walk(const int8_t* weight, int plane, int exponent, const Epilogue& epilogue) {
    return walk_.run(plane_, weight, exponent, accumulator_ + plane * layer_.geometry.output_elements(), accumulator_,
                     epilogue, kernels_, parallel_, scratch_);
  }

  const Layer& layer_;
  const KernelSet& kernels_;
  Parallel& parallel_;
  Scratch& scratch_;
  StepStatistics* statistics_;
  Pass passes_[2 * kMaxPasses] = {};
  int pass_count_ = 0;
  int16_t* lattice_ = nullptr;
  int32_t* accumulator_ = nullptr;
  PreparedPrologue input_;
  DeltaPlane plane_;
  ConvWalk walk_;
};

}  // namespace

LayerStatus run_layer(const Layer& layer, int64_t step, const KernelSet& kernels, Parallel& parallel, Scratch& scratch,
                      StepStatistics* statistics) {
  // A direct layer has no state to tell that it is fresh: it is given the anchor's row itself as its step.
  if (step < 0 || step >= layer.steps + (layer.direct ? 1 : 0)) {
    return LayerStatus::kBadPlan;
  }
  const bool fresh = !layer.direct && is_fresh(layer.counters);
  PlanRow row;
  if (!read_row(layer.table + (fresh ? layer.steps : step) * kPlanColumns, &row)) {
    return LayerStatus::kBadPlan;
  }
  if (row.skips) {
    return LayerStatus::kOk;
  }
  return Run(layer, kernels, parallel, scratch, statistics).step(row, step) ? LayerStatus::kOk
                                                                            : LayerStatus::kNoMemory;
}

}  // namespace modiff
