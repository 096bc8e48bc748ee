//#ExpectVerdict: safe
//#Images: program one
//#Exchange: abc | 3 | 4
/* A library's exported function changes; the program calls it through its PLT. */
#ifdef IMAGE_one
int measure(const char *text);
__attribute__((noipa)) int measure(const char *text) {
    int length = 0;
    while (text[length])
        length++;
#if NEW
    return length + 1;
#else
    return length;
#endif
}
#else
#include "answers.h"
int measure(const char *text);

static void answer(const char *asked) {
    printf("%d\n", measure(asked));
}

int main(void) {
    return serve();
}
#endif
