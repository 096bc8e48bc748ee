//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: order-changed
/* comparator_changed.c behind functions of the program's own. */
#include <stdlib.h>

typedef int cmpf(const void *, const void *);

__attribute__((noinline)) void sort(void *v, size_t n, cmpf *f) {
    if (n > 1)
        qsort(v, n, sizeof(int), f);
}

__attribute__((noinline)) void *find(void *k, void *v, size_t n, cmpf *f) {
    return n ? bsearch(k, v, n, sizeof(int), f) : 0;
}

static int by(const void *a, const void *b) {
    int x = *(int *)a, y = *(int *)b;
#if NEW
    return (unsigned)x<(unsigned)y ? -1 : (unsigned)x>(unsigned) y;
#else
    return x < y ? -1 : x > y;
#endif
}

void tab_sort(int *v, size_t n) {
    sort(v, n, by);
}

int tab_has(int *v, size_t n, int k) {
    return find(&k, v, n, by) != 0;
}
