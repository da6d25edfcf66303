// modiff-engine: loads one program and runs its jobs step by step at the word of the process that started it.
// Usage, frames and exit statuses: PIPE.md.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <executorch/runtime/platform/runtime.h>

#include "kernels/kernel_set.h"
#include "ops/operators.h"
#include "ops/thread_pool.h"
#include "pipe/server.h"
#include "state/program.h"

namespace {

constexpr int kExitUsage = 2;
constexpr int kExitProgram = 3;
constexpr int kExitOperator = 4;
constexpr int kExitMemory = 5;
constexpr unsigned long long kMostSlots = 64;
constexpr unsigned long long kMostThreads = 1024;

struct Options {
  const char* program = nullptr;
  const char* program_id = nullptr;
  const char* isa = "auto";
  unsigned long long slots = 1;
  unsigned long long threads = 1;
  unsigned long long state_budget = 0;
};

bool parse_number(const char* text, unsigned long long* value) {
  char* end = nullptr;
  errno = 0;
  *value = std::strtoull(text, &end, 10);
  return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
}

bool set_option(const char* name, const char* value, Options* options) {
  const auto is = [name](const char* wanted) { return std::strcmp(name, wanted) == 0; };
  if (is("--program")) {
    options->program = value;
  } else if (is("--program-id")) {
    options->program_id = value;
  } else if (is("--isa")) {
    options->isa = value;
  } else if (is("--slots")) {
    return parse_number(value, &options->slots) && options->slots >= 1 && options->slots <= kMostSlots;
  } else if (is("--threads")) {
    return parse_number(value, &options->threads) && options->threads >= 1 && options->threads <= kMostThreads;
  } else if (is("--state-budget")) {
    return parse_number(value, &options->state_budget);
  } else {
    return false;
  }
  return true;
}

bool parse_options(int count, char** arguments, Options* options) {
  for (int i = 1; i < count; i += 2) {
    if (i + 1 >= count || !set_option(arguments[i], arguments[i + 1], options)) {
      std::fprintf(stderr, "modiff-engine: cannot read option %s\n", arguments[i]);
      return false;
    }
  }
  return options->program != nullptr && options->program_id != nullptr && options->state_budget > 0;
}

int hex_digit(char digit) {
  if (digit >= '0' && digit <= '9') {
    return digit - '0';
  }
  return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

// 64 lower-case hexadecimal digits.
bool parse_id(const char* text, uint8_t (&id)[32]) {
  if (std::strlen(text) != 64) {
    return false;
  }
  for (int i = 0; i < 32; ++i) {
    const int high = hex_digit(text[2 * i]);
    const int low = hex_digit(text[2 * i + 1]);
    if (high < 0 || low < 0) {
      return false;
    }
    id[i] = static_cast<uint8_t>(high * 16 + low);
  }
  return true;
}

int exit_status(modiff::LoadStatus status) {
  switch (status) {
    case modiff::LoadStatus::kOk:
      return 0;
    case modiff::LoadStatus::kUnreadable:
      return kExitProgram;
    case modiff::LoadStatus::kMissingOperator:
      return kExitOperator;
    case modiff::LoadStatus::kNoMemory:
      return kExitMemory;
  }
  return kExitProgram;
}

// Replies own the first stdout; whatever else prints there goes to stderr.
int take_stdout() {
  const int replies = dup(STDOUT_FILENO);
  if (replies < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
    return -1;
  }
  return replies;
}

}  // namespace

int main(int count, char** arguments) {
  Options options;
  modiff::SlotPool pool = {};
  if (!parse_options(count, arguments, &options) || !parse_id(options.program_id, pool.program_id)) {
    std::fprintf(stderr,
                 "usage: modiff-engine --program FILE --program-id HEX64 --state-budget BYTES [--slots 1..64]"
                 " [--threads 1..1024] [--isa auto|portable|neon|dotprod|i8mm|avx2|avx512vnni]\n");
    return kExitUsage;
  }
  const modiff::KernelSet* kernels = modiff::find_kernels(options.isa);
  if (kernels == nullptr) {
    std::fprintf(stderr, "modiff-engine: this CPU or build has no kernels for %s\n", options.isa);
    return kExitUsage;
  }
  const int replies = take_stdout();
  if (replies < 0) {
    std::fprintf(stderr, "modiff-engine: stdout is not open\n");
    return kExitUsage;
  }
  std::signal(SIGPIPE, SIG_IGN);
  executorch::runtime::runtime_init();
  modiff::use_kernels(kernels);
  const int threads = std::min(static_cast<int>(options.threads), modiff::cores());
  if (!modiff::use_threads(threads)) {
    std::fprintf(stderr, "modiff-engine: no pool of %d threads\n", threads);
    return kExitMemory;
  }
  modiff::LoadedProgram program;
  const modiff::LoadStatus status = program.open(options.program);
  if (status != modiff::LoadStatus::kOk) {
    return exit_status(status);
  }
  pool.program = &program;
  pool.state_budget = options.state_budget;
  return modiff::Server(&pool, static_cast<unsigned>(options.slots)).serve(STDIN_FILENO, replies);
}
