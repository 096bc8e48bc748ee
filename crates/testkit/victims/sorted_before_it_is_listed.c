//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: new-callback
//#ExpectChanged: by_name
//#ExpectChanged: list
//#AlsoUnnamed: gcc -O3
/* Who sorts an array of the caller's calls a new comparison until the array is sorted, and then
 * nobody has its address any more. Nothing but that proves it, so the livepatch cannot be reverted,
 * and somebody should know. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    const char *name;
    int size;
    struct entry *next;
};

static struct entry *all;

int add(struct entry *entry) {
    entry->next = all;
    all = entry;
    return 0;
}

#if NEW
static int by_name(const void *a, const void *b) {
    const struct entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}
#endif

int list(const struct entry **found, int most) {
    int n = 0;
    for (const struct entry *each = all; each && n < most; each = each->next)
        found[n++] = each;
#if NEW
    qsort(found, n, sizeof *found, by_name);
#endif
    return printf("%d\n", n);
}
