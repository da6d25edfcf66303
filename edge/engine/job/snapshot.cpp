#include "job/snapshot.h"

#include <cstring>

#include "pipe/wire.h"
#include "state/crc32c.h"

namespace modiff {
namespace {

constexpr uint32_t kMagic = 0x4E53444DU;  // "MDSN"
constexpr uint32_t kFormat = 2;
constexpr size_t kIdBytes = 32;
constexpr size_t kHeaderBytes = 4 + 4 + kIdBytes + 8 + 4 * 4 + 8 + 8 + 8;
constexpr size_t kChecksumBytes = 4;

}  // namespace

size_t snapshot_bytes(const SnapshotExpectation& sizes, bool has_image) {
  return kHeaderBytes + sizes.values * sizeof(float) * (has_image ? 2 : 1) + sizes.condition_bytes + sizes.state_bytes +
         kChecksumBytes;
}

void write_snapshot(const SnapshotView& view, const SnapshotExpectation& sizes, std::vector<uint8_t>* blob) {
  blob->clear();
  blob->reserve(snapshot_bytes(sizes, view.has_image));
  put(blob, kMagic);
  put(blob, kFormat);
  put_bytes(blob, sizes.program_id, kIdBytes);
  put(blob, view.seed);
  put(blob, view.start);
  put(blob, view.next_step);
  put(blob, view.steps);
  put(blob, static_cast<uint32_t>(view.has_image ? 1 : 0));
  put(blob, sizes.values);
  put(blob, sizes.condition_bytes);
  put(blob, sizes.state_bytes);
  put_bytes(blob, view.x, sizes.values * sizeof(float));
  if (view.has_image) {
    put_bytes(blob, view.image, sizes.values * sizeof(float));
  }
  put_bytes(blob, view.conditions, sizes.condition_bytes);
  put_bytes(blob, view.state, sizes.state_bytes);
  put(blob, crc32c(blob->data(), blob->size()));
}

Failure read_snapshot(const uint8_t* blob, size_t size, const SnapshotExpectation& expected, SnapshotView* view) {
  if (size < kHeaderBytes + kChecksumBytes) {
    return {Code::kSnapshotDamaged, "the snapshot is shorter than its header"};
  }
  uint32_t checksum;
  std::memcpy(&checksum, blob + size - kChecksumBytes, sizeof(checksum));
  if (crc32c(blob, size - kChecksumBytes) != checksum) {
    return {Code::kSnapshotDamaged, "the snapshot's checksum is wrong"};
  }
  Reader reader(blob, size - kChecksumBytes);
  if (reader.get<uint32_t>() != kMagic || reader.get<uint32_t>() != kFormat) {
    return {Code::kSnapshotDamaged, "not a snapshot of this format"};
  }
  if (std::memcmp(reader.take(kIdBytes), expected.program_id, kIdBytes) != 0) {
    return {Code::kSnapshotForeign, "the snapshot is of another program"};
  }
  view->seed = reader.get<uint64_t>();
  view->start = reader.get<uint32_t>();
  view->next_step = reader.get<uint32_t>();
  view->steps = reader.get<uint32_t>();
  view->has_image = reader.get<uint32_t>() != 0;
  const uint64_t values = reader.get<uint64_t>();
  const uint64_t condition_bytes = reader.get<uint64_t>();
  const uint64_t state_bytes = reader.get<uint64_t>();
  if (view->steps != expected.steps || values != expected.values || condition_bytes != expected.condition_bytes ||
      state_bytes != expected.state_bytes) {
    return {Code::kSnapshotForeign, "the snapshot's sizes are not this program's"};
  }
  view->x = reader.take(values * sizeof(float));
  view->image = view->has_image ? reader.take(values * sizeof(float)) : nullptr;
  view->conditions = reader.take(condition_bytes);
  view->state = reader.take(state_bytes);
  if (!reader.ok() || reader.left() != 0 || view->start > view->next_step || view->next_step > view->steps) {
    return {Code::kSnapshotDamaged, "the snapshot's length does not fit its header"};
  }
  return {};
}

}  // namespace modiff
