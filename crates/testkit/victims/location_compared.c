//#Kind: library
//#ExpectVerdict: safe
//#ExpectChanged: changed
//#ExpectChanged: first
//#ExpectChanged: fourth
//#ExpectChanged: second
//#ExpectChanged: third
/* Each place has a buffer of its own, known by its source line: what moved by five lines is no
 * noise, for two places could come to share one. */
#include <stdio.h>
#include <string.h>

struct site {
    const char *where;
    char text[40];
};

static struct site sites[32];
static int used;

__attribute__((noinline)) char *site(const char *where) {
    for (int i = 0; i < used; i++)
        if (!strcmp(sites[i].where, where))
            return sites[i].text;
    sites[used].where = where;
    return sites[used++].text;
}

#define SITE(old, new) site(NEW ? "src/sites.c:" #new : "src/sites.c:" #old)

const char *changed(long number) {
#if NEW
    if (number < 0)
        return NULL;
#endif
    char *text = SITE(95, 100);
    snprintf(text, 40, "changed %ld", number);
    return text;
}

const char *first(long number) {
    char *text = SITE(100, 105);
    snprintf(text, 40, "first %ld", number);
    return text;
}

const char *second(long number) {
    char *text = SITE(104, 109);
    snprintf(text, 40, "second %ld", number);
    return text;
}

const char *third(long number) {
    char *text = SITE(110, 115);
    snprintf(text, 40, "third %ld", number);
    return text;
}

const char *fourth(long number) {
    char *text = SITE(112, 117);
    snprintf(text, 40, "fourth %ld", number);
    return text;
}
