#include "selftest/stream.h"

#include <cstdlib>
#include <thread>

namespace selftest {

void quit(const char* why) {
  std::fprintf(stderr, "modiff-selftest: %s\n", why);
  std::exit(1);
}

void read_bytes(void* data, size_t bytes) {
  if (bytes > 0 && std::fread(data, 1, bytes, stdin) != bytes) {
    quit("the input ends inside a case");
  }
}

modiff::ImageVector vector_of(const std::vector<float>& values, int64_t rows) {
  return {rows == 0 ? nullptr : values.data(), rows > 1};
}

HeapScratch::~HeapScratch() {
  for (void* block : blocks_) {
    std::free(block);
  }
}

void* HeapScratch::allocate_bytes(size_t bytes) {
  blocks_.push_back(std::malloc(bytes));
  return blocks_.back();
}

void Threads::run(int64_t count, Task task, void* context) {
  std::vector<std::thread> threads;
  for (int64_t first = 0; first < count_; ++first) {
    threads.emplace_back([=] {
      for (int64_t i = first; i < count; i += count_) {
        task(context, i);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace selftest
