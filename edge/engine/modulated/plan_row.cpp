#include "modulated/plan_row.h"

#include <initializer_list>

namespace modiff {

bool read_row(const int8_t* columns, PlanRow* row) {
  *row = {{columns[0], {columns[1], columns[2]}},
          {columns[3], {columns[4], columns[5]}},
          columns[6] == 1,
          columns[7] == 1};
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
  const bool flags = (columns[6] == 0 || columns[6] == 1) && (columns[7] == 0 || columns[7] == 1);
  return flags && !(row->skips && (row->main.count > 0 || row->residual.count > 0));
}

}  // namespace modiff
