// A row of a layer's plan table.
#pragma once

#include <cstdint>

namespace modiff {

constexpr int kPlanColumns = 8;
constexpr int kMaxPasses = 2;
constexpr int kMaxExponent = 15;

struct Passes {
  int count;
  int exponents[kMaxPasses];
};

struct PlanRow {
  Passes main;
  Passes residual;
  bool extrapolates;
  bool skips;  // nobody reads the output
};

// Columns: passes, k0, k1, residual passes, rk0, rk1, reuse (0 hold, 1 extrapolate), skip. False for a damaged row.
bool read_row(const int8_t* columns, PlanRow* row);

}  // namespace modiff
