//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: new-callback
//#ExpectChanged: by_name
//#ExpectChanged: find
//#Flags: -fno-inline
/* What is searched by halves has to lie in that order, and old code put it where there was room. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    char name[16];
    int size;
};

static struct entry all[64];
static int used;

int add(const char *name, int size) {
    if (used == 64)
        return -1;
    strncpy(all[used].name, name, sizeof all->name - 1);
    all[used].size = size;
    return used++;
}

static int by_value(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

int has(const int *sizes, int n, int size) {
    return bsearch(&size, sizes, n, sizeof *sizes, by_value) != NULL;
}

#if NEW
static int by_name(const void *a, const void *b) {
    return strcmp(a, ((const struct entry *)b)->name);
}
#endif

int find(const char *name) {
#if NEW
    const struct entry *found = bsearch(name, all, used, sizeof *all, by_name);
    if (found)
        return printf("%d\n", found->size);
#else
    for (int each = 0; each < used; each++)
        if (!strcmp(all[each].name, name))
            return printf("%d\n", all[each].size);
#endif
    return -1;
}
