// Memory that the system can read again from a file.
#pragma once

#include <cstddef>

namespace modiff {

// Gives the whole pages of [data, data + bytes) back to the system, if they are a read-only mapping of a file: they take
// no memory of this process until they are read again. Does nothing to any other memory.
void release_mapped(const void* data, size_t bytes);

}  // namespace modiff
