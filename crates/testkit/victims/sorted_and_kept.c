//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: new-callback
//#ExpectChanged: add
//#ExpectChanged: by_key
//#ExpectChanged: find
/* One function now sorts what is kept, and another one relies on it: what old code put there is in
 * no order until something is added. */
#include <stdio.h>
#include <stdlib.h>

struct entry {
    long key;
    int size;
};

static struct entry all[64];
static int used;

#if NEW
static int by_key(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    return (x->key > y->key) - (x->key < y->key);
}
#endif

int add(long key, int size) {
    if (used == 64)
        return -1;
    all[used].key = key;
    all[used++].size = size;
#if NEW
    qsort(all, used, sizeof *all, by_key);
#endif
    return printf("%d\n", used);
}

int find(long key) {
#if NEW
    for (int low = 0, high = used; low < high;) {
        int middle = (low + high) / 2;
        if (all[middle].key == key)
            return all[middle].size;
        if (all[middle].key < key)
            low = middle + 1;
        else
            high = middle;
    }
#else
    for (int each = 0; each < used; each++)
        if (all[each].key == key)
            return all[each].size;
#endif
    return -1;
}

int how_many(void) {
    return used;
}
