//#ExpectVerdict: review
//#ExpectReason: data-in-place
//#Images: program one
//#Exchange: 0 | nothing 10 | none 20
//#Exchange: 1 | something 11 | some 21
/* A library's table and a function that it names change together; code that stays reads it. */
#ifndef IMAGE_one
#include "answers.h"
#else
#define ALONE __attribute__((noinline))
#endif

struct entry {
    const char *name;
    int (*value)(int);
};

const struct entry *find(unsigned number);

#ifdef IMAGE_one
ALONE static int value(int number) {
#if NEW
    return number < 0 ? -1 : number + 20;
#else
    return number + 10;
#endif
}

static const struct entry entries[] = {
#if NEW
    {"none", value},
    {"some", value},
#else
    {"nothing", value},
    {"something", value},
#endif
};

ALONE const struct entry *find(unsigned number) {
    return &entries[number % 2];
}
#else
ALONE static void answer(const char *asked) {
    unsigned number = (unsigned)atoi(asked);
    const struct entry *entry = find(number);
    printf("%s %d\n", entry->name, entry->value((int)number));
}

int main(void) {
    return serve();
}
#endif
