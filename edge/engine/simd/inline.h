// Functions of vectors are parts of their callers' loops: a call would pass every vector through memory.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
// Checked builds have too many instructions in each of them.
#define MODIFF_INLINE inline
#else
#define MODIFF_INLINE [[gnu::always_inline]] inline
#endif
