// Little-endian values in byte buffers; the hosts that the engine runs on are little-endian, and a test says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace modiff {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the pipe and the snapshots are little-endian");

using Bytes = std::vector<uint8_t>;

inline void put_bytes(Bytes* bytes, const void* data, size_t count) {
  const uint8_t* begin = static_cast<const uint8_t*>(data);
  bytes->insert(bytes->end(), begin, begin + count);
}

template <typename T>
void put(Bytes* bytes, T value) {
  put_bytes(bytes, &value, sizeof(value));
}

// Reads in order; a read beyond the end gives zero and makes ok() false.
class Reader {
 public:
  Reader(const uint8_t* data, size_t size) : data_(data), left_(size) {}

  bool ok() const { return ok_; }
  size_t left() const { return left_; }

  template <typename T>
  T get() {
    T value = {};
    const uint8_t* place = take(sizeof(T));
    if (place != nullptr) {
      std::memcpy(&value, place, sizeof(T));
    }
    return value;
  }

  // The next bytes, nullptr when there are fewer.
  const uint8_t* take(size_t count) {
    if (!ok_ || count > left_) {
      ok_ = false;
      return nullptr;
    }
    const uint8_t* place = data_;
    data_ += count;
    left_ -= count;
    return place;
  }

 private:
  const uint8_t* data_;
  size_t left_;
  bool ok_ = true;
};

}  // namespace modiff
