//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: struct-layout
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* The elements of an array grow, and with them the instructions that multiply. */
#include <stdlib.h>

struct row {
    long id, uses, limit, last;
#if NEW
    long owner;
#endif
    char tag[8];
};
struct rows {
    struct row *row;
    int count;
};

__attribute__((noinline)) int grow(struct rows *rows) {
    struct row *more = realloc(rows->row, ((unsigned)rows->count + 1) * sizeof *more);
    if (!more)
        return -1;
    rows->row = more;
    rows->row[rows->count].id = 0;
    return rows->count++;
}
__attribute__((noinline)) long uses(struct rows *rows, int i) { return rows->row[i].uses; }
__attribute__((noinline)) void allow(struct rows *rows, int i, long limit) { rows->row[i].limit = limit; }
