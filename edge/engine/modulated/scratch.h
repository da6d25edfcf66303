// Memory that a layer needs only while it runs.
#pragma once

#include <cstddef>

namespace modiff {

class Scratch {
 public:
  virtual ~Scratch() = default;

  // 64-byte aligned, not initialised; nullptr when there is no memory. Freed by the owner after the layer returns.
  virtual void* allocate_bytes(size_t bytes) = 0;

  template <typename T>
  T* allocate(size_t count) {
    return static_cast<T*>(allocate_bytes(count * sizeof(T)));
  }
};

}  // namespace modiff
