// Why a request was refused; the numbers are part of the pipe protocol (PIPE.md).
#pragma once

#include <cstdint>

namespace modiff {

enum class Code : uint32_t {
  kOk = 0,
  kBadFrame = 1,
  kNoSuchSlot = 2,
  kNotReady = 3,
  kNoMemory = 4,
  kImageSize = 5,
  kNotFinite = 6,
  kStartOutOfRange = 7,
  kSnapshotDamaged = 8,
  kSnapshotForeign = 9,
  kOperatorFailed = 10,
  kOutputNotFinite = 11,
  kConditionSize = 12,
};

struct Failure {
  Code code = Code::kOk;
  const char* message = "";

  bool failed() const { return code != Code::kOk; }
};

}  // namespace modiff
