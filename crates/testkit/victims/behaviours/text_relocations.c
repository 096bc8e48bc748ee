//#ExpectVerdict: refused
//#ExpectRefusal: text-relocations
//#Images: program one
//#LibraryFlags: -mcmodel=large -fno-pic -Wl,-z,notext
/* ld.so wrote addresses into the library's code: that page is no longer what the file has. */
#ifdef IMAGE_one
int changed(int number, const char **text);
static const char *words[] = {"hello", "world"};
__attribute__((noipa)) int changed(int number, const char **text) {
    *text = words[number > 100];
#if NEW
    return number + 1;
#else
    return number;
#endif
}
#else
#include "answers.h"
int changed(int number, const char **text);

static void answer(const char *asked) {
    const char *text;
    int got = changed(atoi(asked), &text);
    printf("%d %s\n", got, text);
}

int main(void) {
    return serve();
}
#endif
