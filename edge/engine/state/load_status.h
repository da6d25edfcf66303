// How loading a program, or a method of it, ended.
#pragma once

#include <executorch/runtime/core/error.h>

namespace modiff {

enum class LoadStatus { kOk, kUnreadable, kMissingOperator, kNoMemory };

inline LoadStatus to_load_status(executorch::runtime::Error error) {
  switch (error) {
    case executorch::runtime::Error::Ok:
      return LoadStatus::kOk;
    case executorch::runtime::Error::OperatorMissing:
      return LoadStatus::kMissingOperator;
    case executorch::runtime::Error::MemoryAllocationFailed:
    case executorch::runtime::Error::OutOfResources:
      return LoadStatus::kNoMemory;
    default:
      return LoadStatus::kUnreadable;
  }
}

}  // namespace modiff
