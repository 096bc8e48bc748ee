//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: label-address
//#Flags: -Wno-dangling-pointer
/* A stackless coroutine keeps the address of the label where it goes on. A check is added. */
#include <stdio.h>

struct co {
    void *at;
    long sum;
};

__attribute__((noinline)) void put(char *o, long n) {
    snprintf(o, 20, "%ld", n);
}

int co_run(struct co *c, long in, char *out) {
    if (c->at)
        goto *c->at;
#if NEW
    char tmp[64];
    if (in < 0 || in > 40)
        return -1;
    for (int i = 0; i <= in; i++)
        ((volatile char *)tmp)[i] = 0;
    out[0] = tmp[in];
#endif
    c->sum = in;
    c->at = &&second;
    return 0;
second:
    c->sum += in * 10;
    put(out, c->sum);
    c->at = &&third;
    return 0;
third:
    c->sum += in * 100;
    put(out, c->sum);
    c->at = 0;
    return 1;
}
