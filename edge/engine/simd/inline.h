// Functions of vectors are parts of their callers' loops: a call would pass every vector through memory.
#pragma once

#define MODIFF_INLINE [[gnu::always_inline]] inline
