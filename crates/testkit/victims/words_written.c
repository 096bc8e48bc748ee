//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: data-changed
/* Lies with the constants, but code writes it before they are made read-only. */
static __attribute__((section(".data.rel.ro"))) const char *names[] = {"zero", "one",
#if NEW
    "zwei",
#else
    "two",
#endif
    "three"};

__attribute__((noinline)) const char *name(unsigned number) { return names[number & 3]; }
__attribute__((noinline)) void start(const char *first) { names[0] = first; }
