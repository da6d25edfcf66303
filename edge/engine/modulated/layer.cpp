#include "modulated/layer.h"

#include <cstring>
#include <initializer_list>

#include "modulated/convolution.h"
#include "modulated/output.h"

namespace modiff {
namespace {

struct Passes {
  int count;
  int exponents[kMaxPasses];
};

struct PlanRow {
  Passes main;
  Passes residual;
  bool extrapolates;
};

// Columns: passes, k0, k1, residual passes, rk0, rk1, reuse (0 hold, 1 extrapolate), 0.
bool read_row(const int8_t* columns, PlanRow* row) {
  *row = {{columns[0], {columns[1], columns[2]}}, {columns[3], {columns[4], columns[5]}}, columns[6] == 1};
  for (const Passes* passes : {&row->main, &row->residual}) {
    if (passes->count < 0 || passes->count > kMaxPasses) {
      return false;
    }
    for (const int exponent : passes->exponents) {
      if (exponent < 0 || exponent > kMaxExponent) {
        return false;
      }
    }
  }
  return columns[6] == 0 || columns[6] == 1;
}

struct State {
  int16_t* lattice;
  int32_t* accumulator;
};

// Of a direct layer the state is scratch, zero before each step.
bool bind_state(const Layer& layer, Scratch& scratch, State* state) {
  *state = {layer.lattice, layer.accumulator};
  if (!layer.direct) {
    return true;
  }
  const size_t inputs = static_cast<size_t>(layer.planes * layer.geometry.input_elements());
  const size_t outputs = static_cast<size_t>(layer.planes * layer.geometry.output_elements());
  state->lattice = scratch.allocate<int16_t>(inputs);
  state->accumulator = scratch.allocate<int32_t>(outputs);
  if (state->lattice == nullptr || state->accumulator == nullptr) {
    return false;
  }
  std::memset(state->lattice, 0, inputs * sizeof(int16_t));
  std::memset(state->accumulator, 0, outputs * sizeof(int32_t));
  return true;
}

class Run {
 public:
  Run(const Layer& layer, const KernelSet& kernels, Scratch& scratch, StepStatistics* statistics)
      : layer_(layer), flat_(flattened(layer.geometry)), kernels_(kernels), scratch_(scratch), statistics_(statistics) {}

  LayerStatus step(const PlanRow& row, int64_t step) {
    if (!bind_state(layer_, scratch_, &state_) || (uses_plane(row) && !prepare_plane(flat_, scratch_, &plane_))) {
      return LayerStatus::kNoMemory;
    }
    const bool refresh = row.main.count > 0;
    OutputSource source = output_source();
    if (refresh && !layer_.direct) {
      if (layer_.history != nullptr && layer_.counters[kRefreshes] > 0) {
        read_history(source, kernels_, layer_.history);
      }
      layer_.counters[kPreviousStep] = layer_.counters[kLastStep];
      layer_.counters[kLastStep] = static_cast<int32_t>(step);
      layer_.counters[kRefreshes] += 1;
    }
    if (!run_passes(row)) {
      return LayerStatus::kNoMemory;
    }
    source.extrapolation = extrapolation(row, step);
    return write_output(source, kernels_, scratch_, layer_.input.channels_first, layer_.output)
               ? LayerStatus::kOk
               : LayerStatus::kNoMemory;
  }

 private:
  bool uses_plane(const PlanRow& row) const {
    return row.main.count > 0 || (row.residual.count > 0 && layer_.planes > 1);
  }

  OutputSource output_source() const {
    OutputSource source = {};
    const Geometry& g = layer_.geometry;
    source.geometry = &g;
    source.accumulator = state_.accumulator;
    source.residual = layer_.planes > 1 ? state_.accumulator + g.output_elements() : nullptr;
    source.scale = layer_.scale;
    source.residual_scale = layer_.scale + g.out_channels;
    source.bias = layer_.bias;
    return source;
  }

  Extrapolation extrapolation(const PlanRow& row, int64_t step) const {
    const bool wanted = row.main.count == 0 && row.extrapolates && layer_.history != nullptr && !layer_.direct;
    if (!wanted || layer_.counters[kRefreshes] < 2) {
      return {nullptr, 0.0F};
    }
    const int32_t newest = layer_.counters[kLastStep];
    const float ahead = static_cast<float>(static_cast<int32_t>(step) - newest);
    const float apart = static_cast<float>(newest - layer_.counters[kPreviousStep]);
    return {layer_.history, ahead / apart};
  }

  bool run_passes(const PlanRow& row) {
    uint64_t saturated = 0;
    for (int i = 0; i < row.main.count; ++i) {
      if (!run_pass(0, row.main.exponents[i], &saturated)) {
        return false;
      }
      statistics_->passes += 1;
    }
    statistics_->saturated += saturated;
    for (int i = 0; i < row.residual.count && layer_.planes > 1; ++i) {
      if (!run_pass(1, row.residual.exponents[i], &saturated)) {
        return false;
      }
      statistics_->residual_passes += 1;
    }
    return true;
  }

  bool run_pass(int plane, int exponent, uint64_t* saturated) {
    const QuantizePass pass = {layer_.inverse_step, exponent, (1 << (layer_.lattice_bits - 1)) - 1};
    int16_t* lattice = state_.lattice + plane * layer_.geometry.input_elements();
    int32_t* accumulator = state_.accumulator + plane * layer_.geometry.output_elements();
    bool ok = false;
    const QuantizeOutcome outcome = fill_plane(flat_, layer_.input, pass, kernels_, lattice, scratch_, &plane_, &ok);
    if (!ok) {
      return false;
    }
    *saturated = outcome.saturated;
    statistics_->macs += static_cast<uint64_t>(layer_.geometry.macs());
    return !outcome.changed || accumulate_convolution(flat_, plane_, layer_.weight[plane], exponent, kernels_,
                                                      accumulator, scratch_);
  }

  const Layer& layer_;
  const Geometry flat_;
  const KernelSet& kernels_;
  Scratch& scratch_;
  StepStatistics* statistics_;
  State state_ = {nullptr, nullptr};
  DeltaPlane plane_ = {};
};

}  // namespace

LayerStatus run_layer(const Layer& layer, int64_t step, const KernelSet& kernels, Scratch& scratch,
                      StepStatistics* statistics) {
  if (step < 0 || step >= layer.steps) {
    return LayerStatus::kBadPlan;
  }
  const bool fresh = !layer.direct && layer.counters[kRefreshes] == 0;
  PlanRow row;
  if (!read_row(layer.table + (fresh ? layer.steps : step) * kPlanColumns, &row)) {
    return LayerStatus::kBadPlan;
  }
  return Run(layer, kernels, scratch, statistics).step(row, step);
}

}  // namespace modiff
