// A library with one function, for a change of two images in one transition.
#ifdef NEW
#define VALUE 7
#else
#define VALUE 5
#endif
__attribute__((noipa, aligned(16))) int from_library(void) { return VALUE; }
