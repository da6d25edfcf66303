// The bytes of a snapshot: "MDSN", u32 format, program id [32], u64 seed, u32 start, u32 next step, u32 steps,
// u32 has image, u64 values of x, u64 condition bytes, u64 state bytes, x, image if there is one, conditions, state,
// u32 CRC-32C of all before it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "job/failure.h"

namespace modiff {

struct SnapshotView {
  uint64_t seed;
  uint32_t start;
  uint32_t next_step;
  uint32_t steps;
  bool has_image;
  const uint8_t* x;      // values * 4 bytes
  const uint8_t* image;  // nullptr without one
  const uint8_t* conditions;  // condition_bytes
  const uint8_t* state;  // state_bytes
};

// What the reader's program says; a snapshot that says otherwise is not its own.
struct SnapshotExpectation {
  const uint8_t* program_id;
  uint32_t steps;
  uint64_t values;
  uint64_t condition_bytes;
  uint64_t state_bytes;
};

size_t snapshot_bytes(const SnapshotExpectation& sizes, bool has_image);

void write_snapshot(const SnapshotView& view, const SnapshotExpectation& sizes, std::vector<uint8_t>* blob);

// The view points into `blob`.
Failure read_snapshot(const uint8_t* blob, size_t size, const SnapshotExpectation& expected, SnapshotView* view);

}  // namespace modiff
