// Frames on two file descriptors: u32 payload length, u8 kind, u8 slot, u16 zero, payload; all little-endian.
#pragma once

#include <cstdint>

#include "pipe/wire.h"

namespace modiff {

constexpr uint32_t kMostPayloadBytes = 64U << 20;

struct Frame {
  uint8_t kind;
  uint8_t slot;
  Bytes payload;
};

enum class ReadStatus {
  kFrame,
  kEnd,      // the stream ended between frames
  kCut,      // the stream ended inside a frame, or could not be read
  kTooLong,  // a length beyond the bound: where the next frame begins is unknown
};

ReadStatus read_frame(int descriptor, Frame* frame);

// False when the reader is gone.
bool write_frame(int descriptor, const Frame& frame);

}  // namespace modiff
