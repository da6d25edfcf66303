// Answers the requests of PIPE.md, one at a time, until the pipe ends.
#pragma once

#include <deque>

#include "job/slot.h"
#include "pipe/frame.h"

namespace modiff {

class Server {
 public:
  Server(SlotPool* pool, unsigned slots);

  // Returns the process's exit status: 0 at the end of the requests, 1 when the stream broke inside a frame.
  int serve(int requests, int replies);

  // The reply to one request, never empty: an error has kind 0xFF.
  Frame answer(const Frame& request);

 private:
  Failure dispatch(const Frame& request, Bytes* reply);
  Failure begin(Slot& slot, const Bytes& payload);
  void describe(Bytes* reply) const;
  void measure(Bytes* reply) const;

  SlotPool* pool_;
  std::deque<Slot> slots_;
};

}  // namespace modiff
