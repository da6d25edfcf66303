// Elementwise functions by the numbers that operators carry (edge/calls.py).
#pragma once

namespace modiff {

enum class Activation { kNone = 0, kSilu = 1, kGelu = 2, kGeluTanh = 3, kRelu = 4 };
constexpr int kActivations = 5;

}  // namespace modiff
