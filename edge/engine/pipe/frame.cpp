#include "pipe/frame.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace modiff {
namespace {

constexpr size_t kHeaderBytes = 8;
// Payload memory grows with what has arrived, not with what a header promises.
constexpr size_t kReadBytes = 1 << 20;

// Bytes read, fewer than asked only at the end of the stream.
size_t read_fully(int descriptor, uint8_t* data, size_t count) {
  size_t done = 0;
  while (done < count) {
    const ssize_t got = read(descriptor, data + done, count - done);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      break;
    }
    done += static_cast<size_t>(got);
  }
  return done;
}

bool write_fully(int descriptor, const uint8_t* data, size_t count) {
  size_t done = 0;
  while (done < count) {
    const ssize_t put = write(descriptor, data + done, count - done);
    if (put < 0 && errno == EINTR) {
      continue;
    }
    if (put <= 0) {
      return false;
    }
    done += static_cast<size_t>(put);
  }
  return true;
}

}  // namespace

ReadStatus read_frame(int descriptor, Frame* frame) {
  uint8_t header[kHeaderBytes];
  const size_t got = read_fully(descriptor, header, kHeaderBytes);
  if (got < kHeaderBytes) {
    return got == 0 ? ReadStatus::kEnd : ReadStatus::kCut;
  }
  Reader reader(header, kHeaderBytes);
  const uint32_t length = reader.get<uint32_t>();
  frame->kind = reader.get<uint8_t>();
  frame->slot = reader.get<uint8_t>();
  const uint16_t zero = reader.get<uint16_t>();
  if (length > kMostPayloadBytes || zero != 0) {
    return ReadStatus::kTooLong;
  }
  frame->payload.clear();
  while (frame->payload.size() < length) {
    const size_t before = frame->payload.size();
    const size_t wanted = std::min<size_t>(kReadBytes, length - before);
    frame->payload.resize(before + wanted);
    if (read_fully(descriptor, frame->payload.data() + before, wanted) < wanted) {
      return ReadStatus::kCut;
    }
  }
  return ReadStatus::kFrame;
}

bool write_frame(int descriptor, const Frame& frame) {
  Bytes header;
  put(&header, static_cast<uint32_t>(frame.payload.size()));
  put(&header, frame.kind);
  put(&header, frame.slot);
  put(&header, static_cast<uint16_t>(0));
  return write_fully(descriptor, header.data(), header.size()) &&
         write_fully(descriptor, frame.payload.data(), frame.payload.size());
}

}  // namespace modiff
