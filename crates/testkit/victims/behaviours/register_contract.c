//#ExpectVerdict: safe
//#Exchange: 3 | 52 | 10832
/* A local function clobbers more registers than it did. Its callers were compiled with
 * the knowledge of which ones (gcc's -fipa-ra) and keep their own values in the rest:
 * whoever relied on one that is no longer spared has to be replaced with it. */
#include "answers.h"

__attribute__((noinline)) static long leaf(long k) {
#if NEW
    long a = k * 3, b = a ^ 0x55, c = b * 7, d = c - a, e = d ^ b, f = e + c;
    for (long i = 0; i < k; i++) {
        a += b;
        b ^= c;
        c += d;
        d ^= e;
        e += f;
        f -= a;
    }
    return a + b + c + d + e + f;
#else
    return k * 3;
#endif
}

__attribute__((noinline)) static long middle(long a, long b, long c, long d) {
    long result = leaf(a);
    return result + b * c + d;
}

/* It stays as it is as long as what it relies on is spared by all it calls. */
__attribute__((noinline)) static long outer(long a, long b) {
    long result = middle(a, b, a + 2, a + 3);
    return result + b * 5 - a;
}

static void answer(const char *asked) {
    long k = atol(asked);
    printf("%ld\n", outer(k, k + 1));
}

int main(void) {
    return serve();
}
