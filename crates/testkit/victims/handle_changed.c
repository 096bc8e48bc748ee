//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: field-meaning
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* What a handle is: the number of a slot, or its address. */
struct slot { long used, value; };
static struct slot slots[16];
__attribute__((noinline)) long opened(void) {
    for (long i = 0; i < 16; i++)
        if (!slots[i].used) { slots[i].used = 1; return NEW ? (long)&slots[i] : i; }
    return -1;
}
__attribute__((noinline)) long worth(long handle) {
#if NEW
    return ((struct slot *)handle)->value;
#else
    return slots[handle].value;
#endif
}
__attribute__((noinline)) long first(void) { return slots[0].value; }
