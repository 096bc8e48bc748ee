//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: order-changed
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: clang -O2
/* A table that lives is filed by the old hash. */
#include <stdlib.h>
#include <string.h>
struct entry { struct entry *next; char *key; int value; };
static struct entry *table[64];
__attribute__((noinline)) static unsigned hash(const char *s) {
    unsigned h = 5381;
    while (*s) h = h * (NEW ? 65599 : 33) + (unsigned char)*s++;
    return h;
}
__attribute__((noinline)) struct entry *find(const char *key) {
    for (struct entry *e = table[hash(key) % 64]; e; e = e->next)
        if (!strcmp(e->key, key)) return e;
    return 0;
}
__attribute__((noinline)) void add(struct entry *e) {
    struct entry **b = &table[hash(e->key) % 64];
    e->next = *b; *b = e;
}
