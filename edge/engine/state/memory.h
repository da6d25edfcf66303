// Memory that is owned, counted and can be refused: no allocation here aborts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <executorch/runtime/core/memory_allocator.h>

namespace modiff {

// Page-aligned, zero-filled memory straight from the kernel, given back when the region is released.
class Region {
 public:
  Region() = default;
  ~Region() { release(); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  // False when the kernel refuses; a former content is released first.
  bool acquire(size_t bytes);
  void release();
  void clear();

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// A bump allocator that grows by chunks. After a reset it keeps one chunk as large as all that were used, so that a
// cycle of allocations that repeats (the temporaries of one step's operators) soon allocates nothing.
class GrowingAllocator final : public executorch::runtime::MemoryAllocator {
 public:
  GrowingAllocator() : MemoryAllocator(0, nullptr) {}
  ~GrowingAllocator() override { free_chunks(); }
  GrowingAllocator(const GrowingAllocator&) = delete;
  GrowingAllocator& operator=(const GrowingAllocator&) = delete;

  void* allocate(size_t size, size_t alignment = kDefaultAlignment) override;
  void reset() override;
  size_t used_size() const override { return used_; }
  size_t free_size() const override;

 private:
  struct Chunk {
    uint8_t* data;
    size_t size;
  };

  void free_chunks();
  bool add_chunk(size_t least);

  std::vector<Chunk> chunks_;
  size_t position_ = 0;  // in the last chunk
  size_t used_ = 0;
  size_t wanted_ = 0;  // size of the next chunk, at least
};

}  // namespace modiff
