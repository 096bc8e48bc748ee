//#ExpectVerdict: safe
//#Images: program one
//#Exchange: abc | 294 3 | 295 3
/* The changed function calls IFUNCs: its own library's, already chosen, and the C library's. */
#ifdef IMAGE_one
#include <string.h>
int weigh(const char *text);
int total(const char *text);
static int total_plainly(const char *text) {
    int sum = 0;
    while (*text)
        sum += (unsigned char)*text++;
    return sum;
}
static int (*choose(void))(const char *) {
    return total_plainly;
}
int total(const char *text) __attribute__((ifunc("choose")));
__attribute__((noipa)) int weigh(const char *text) {
    char copy[64];
    memcpy(copy, text, strlen(text) + 1);
#if NEW
    return total(copy) + 1;
#else
    return total(copy);
#endif
}
#else
#include "answers.h"
int weigh(const char *text);

static void answer(const char *asked) {
    printf("%d %zu\n", weigh(asked), strlen(asked));
}

int main(void) {
    return serve();
}
#endif
