//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: data-changed
/* A table that anybody may write to: what the process has there now is not known. */
const char *names[] = {"zero", "one",
#if NEW
    "zwei",
#else
    "two",
#endif
    "three"};

__attribute__((noinline)) const char *name(unsigned number) { return names[number & 3]; }
