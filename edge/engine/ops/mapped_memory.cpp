#include "ops/mapped_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace modiff {
namespace {

// Whether one read-only mapping of a file holds the whole range. Read anew each time: it is asked once a residual pass,
// and mappings come and go.
bool is_mapped_file(uintptr_t begin, uintptr_t end) {
  std::FILE* maps = std::fopen("/proc/self/maps", "r");
  if (maps == nullptr) {
    return false;
  }
  bool found = false;
  char line[512];
  while (!found && std::fgets(line, sizeof(line), maps) != nullptr) {
    uintptr_t first = 0;
    uintptr_t last = 0;
    char access[5] = {};
    unsigned long inode = 0;
    const int read = std::sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*s %*s %lu", &first, &last, access, &inode);
    // Private or shared: what cannot be written is the file's.
    const bool read_only = std::strcmp(access, "r--p") == 0 || std::strcmp(access, "r--s") == 0;
    found = read == 4 && inode != 0 && read_only && first <= begin && end <= last;
  }
  std::fclose(maps);
  return found;
}

}  // namespace

void release_mapped(const void* data, size_t bytes) {
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  if (begin >= end || !is_mapped_file(begin, end)) {
    return;
  }
  void* const pages = reinterpret_cast<void*>(begin);
  // A flag of its own makes the range a mapping of its own, into which faults on its neighbours bring no pages.
  // Refusals cost memory, nothing else.
  static_cast<void>(madvise(pages, end - begin, MADV_NOHUGEPAGE));
  static_cast<void>(madvise(pages, end - begin, MADV_DONTNEED));
}

}  // namespace modiff
