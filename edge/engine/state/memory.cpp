#include "state/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace modiff {
namespace {

constexpr size_t kSmallestChunk = 256 * 1024;
constexpr size_t kChunkAlignment = 64;

}  // namespace

bool Region::acquire(size_t bytes) {
  release();
  if (bytes == 0) {
    return true;
  }
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return false;
  }
  data_ = static_cast<uint8_t*>(memory);
  size_ = bytes;
  return true;
}

void Region::release() {
  if (data_ != nullptr) {
    munmap(data_, size_);
  }
  data_ = nullptr;
  size_ = 0;
}

void Region::clear() {
  if (size_ > 0) {
    std::memset(data_, 0, size_);
  }
}

bool GrowingAllocator::add_chunk(size_t least) {
  const size_t wanted = std::max({least, wanted_, kSmallestChunk});
  const size_t bytes = (wanted + kChunkAlignment - 1) / kChunkAlignment * kChunkAlignment;
  void* memory = std::aligned_alloc(kChunkAlignment, bytes);
  if (memory == nullptr) {
    return false;
  }
  chunks_.push_back({static_cast<uint8_t*>(memory), bytes});
  position_ = 0;
  return true;
}

void* GrowingAllocator::allocate(size_t size, size_t alignment) {
  if (!isPowerOf2(alignment) || size > SIZE_MAX / 2 || alignment > SIZE_MAX / 4) {
    return nullptr;
  }
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (!chunks_.empty()) {
      const Chunk& chunk = chunks_.back();
      uint8_t* const start = alignPointer(chunk.data + position_, alignment);
      const size_t begin = static_cast<size_t>(start - chunk.data);
      if (begin <= chunk.size && size <= chunk.size - begin) {
        used_ += begin + size - position_;
        position_ = begin + size;
        return start;
      }
    }
    if (!add_chunk(size + alignment)) {
      return nullptr;
    }
  }
  return nullptr;
}

void GrowingAllocator::reset() {
  if (chunks_.size() > 1) {
    size_t total = 0;
    for (const Chunk& chunk : chunks_) {
      total += chunk.size;
    }
    wanted_ = total;
    free_chunks();
  }
  position_ = 0;
  used_ = 0;
}

size_t GrowingAllocator::free_size() const { return chunks_.empty() ? 0 : chunks_.back().size - position_; }

void GrowingAllocator::free_chunks() {
  for (const Chunk& chunk : chunks_) {
    std::free(chunk.data);
  }
  chunks_.clear();
}

}  // namespace modiff
