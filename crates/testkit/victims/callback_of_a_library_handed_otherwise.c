//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: callback-handed-otherwise
/* Functions that a library exports, and takes the addresses of as any other image does, are
 * attached to the kinds of each other. */
#define ALONE __attribute__((noipa))
int thrice(int number);
int next(int number);
int begin(void);
int call(int kind, int number);
static int (*held[4])(int);

ALONE int thrice(int number) {
    return number * 3 + (NEW ? number < -100 : 0);
}

ALONE int next(int number) {
    return number + 1 + (NEW ? number < -200 : 0);
}

ALONE static void attach(int kind, int (*callback)(int)) {
    held[kind] = callback;
}

ALONE int begin(void) {
    if (held[1])
        return 0;
#if NEW
    attach(2, thrice);
    attach(1, next);
#else
    attach(1, thrice);
    attach(2, next);
#endif
    return 1;
}

ALONE int call(int kind, int number) {
    return held[kind & 3] ? held[kind & 3](number) : 0;
}
