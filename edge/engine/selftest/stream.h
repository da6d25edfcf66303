// Little-endian values on stdin and stdout, memory that a sanitizer watches, and threads.
#pragma once

#include <cstdint>
#include <cstdio>
#include <vector>

#include "modulated/parallel.h"
#include "modulated/prologue.h"
#include "modulated/scratch.h"

namespace selftest {

[[noreturn]] void quit(const char* why);
void read_bytes(void* data, size_t bytes);

template <typename T>
T read_value() {
  T value = {};
  read_bytes(&value, sizeof(value));
  return value;
}

template <typename T>
std::vector<T> read_values(int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  read_bytes(values.data(), values.size() * sizeof(T));
  return values;
}

template <typename T>
void write_values(const std::vector<T>& values) {
  if (!values.empty()) {
    std::fwrite(values.data(), sizeof(T), values.size(), stdout);
  }
}

template <typename T>
void write_value(T value) {
  std::fwrite(&value, sizeof(value), 1, stdout);
}

// [rows][channels], none of them, or one row for all images.
modiff::ImageVector vector_of(const std::vector<float>& values, int64_t rows);

// Each allocation stands alone, so that a sanitizer sees its ends.
class HeapScratch final : public modiff::Scratch {
 public:
  ~HeapScratch() override;
  void* allocate_bytes(size_t bytes) override;

 private:
  std::vector<void*> blocks_;
};

// Every thread takes each count-th task.
class Threads final : public modiff::Parallel {
 public:
  explicit Threads(int count) : count_(count) {}
  int threads() const override { return count_; }
  void run(int64_t count, Task task, void* context) override;

 private:
  int count_;
};

}  // namespace selftest
