// CRC-32C (Castagnoli), as in RFC 3720: reflected polynomial 0x82F63B78, initial value and final XOR all ones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace modiff {

uint32_t crc32c(const uint8_t* bytes, size_t count);

}  // namespace modiff
