//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: data-changed
/* A program may have a copy of it, or a table of its own with this name. */
const char *const names[] = {"zero", "one",
#if NEW
    "zwei",
#else
    "two",
#endif
    "three"};

__attribute__((noinline)) const char *name(unsigned number) { return names[number & 3]; }
