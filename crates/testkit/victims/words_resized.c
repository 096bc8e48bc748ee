//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: data-changed
/* A row more in the middle: those behind it move, and who stays knows how many there are. */
static const char *const names[] = {
    "zero", "one",
#if NEW
    "one and a half",
#endif
    "two", "three"};

__attribute__((noinline)) const char *name(unsigned number) { return names[number & 3]; }
