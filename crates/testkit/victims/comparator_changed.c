//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: order-changed
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* An array that is sorted lives on, and a sort may be under way. */
#include <stdlib.h>
struct row { int key, sub; };
static struct row rows[100]; static size_t count;
static int order(const void *a, const void *b) {
    const struct row *x = a, *y = b;
#if NEW
    if (x->sub != y->sub) return x->sub < y->sub ? -1 : 1;
#endif
    return x->key < y->key ? -1 : x->key > y->key;
}
__attribute__((noinline)) void sort(void) { qsort(rows, count, sizeof *rows, order); }
__attribute__((noinline)) struct row *find(struct row *k) { return bsearch(k, rows, count, sizeof *rows, order); }
__attribute__((noinline)) int add(struct row *r) { if (count >= 100) return -1; rows[count++] = *r; return 0; }
