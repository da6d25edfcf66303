// The kernels' tasks on ExecuTorch's thread pool.
#pragma once

#include "modulated/parallel.h"

namespace modiff {

// That this process may run on.
int cores();

// Sets the pool's threads, those of the runtime's own operators, too; must be called before the first step, from the main
// thread. False if there is no pool, unless one thread is wanted.
bool use_threads(int threads);

// Of the process. Runs everything on the calling thread until use_threads says otherwise.
Parallel& thread_pool();

}  // namespace modiff
