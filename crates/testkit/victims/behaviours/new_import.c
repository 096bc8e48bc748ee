//#ExpectVerdict: safe
//#Flags: -fno-builtin -rdynamic
//#Images: program one
//#Exchange: a1b22 | -1 0 0 a1b22 | 5 1 1 A1B22
/* New code uses what its library did not import: a function and a variable of the C
 * library, one that is chosen at load (the program has bound it), and the program's. */
#ifdef IMAGE_one
#include <ctype.h>
#include <string.h>
#include <unistd.h>
int measure(char *text, int *index, int *asked);
int owner(void);
#if NEW
int times_asked(void);
#endif

int owner(void) {
    return getpid() + getppid();
}

__attribute__((noipa)) int measure(char *text, int *index, int *asked) {
#if NEW
    for (char *at = text; *at; at++)
        *at = (char)toupper(*at);
    *index = optind;
    *asked = times_asked() > 0;
    return (int)strcspn(text, "\n");
#else
    *index = *asked = 0;
    return text ? -1 : 0;
#endif
}
#else
#include "answers.h"
int measure(char *text, int *index, int *asked);
int times_asked(void);
static int times;

int times_asked(void) {
    return times;
}

static void answer(const char *asked) {
    char copy[64];
    int index, seen;
    times++;
    snprintf(copy, sizeof copy, "%s", asked);
    int length = measure(copy, &index, &seen);
    printf("%d %d %d %s\n", length, index, seen, copy);
}

int main(void) {
    return serve();
}
#endif
