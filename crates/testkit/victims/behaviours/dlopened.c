//#ExpectVerdict: safe
//#Images: program plugin:one
//#Exchange: 5 | 10 | 11
/* A library that the program opened while it ran. */
#ifdef IMAGE_one
int plugin(int number);
__attribute__((noipa)) int plugin(int number) {
#if NEW
    return number < 0 ? 0 : number * 2 + 1;
#else
    return number < 0 ? 0 : number * 2;
#endif
}
#else
#include "answers.h"
#include <dlfcn.h>

static int (*plugin)(int);

static void answer(const char *asked) {
    printf("%d\n", plugin(atoi(asked)));
}

int main(void) {
    void *library = dlopen("libone.so", RTLD_NOW);
    if (!library)
        return fprintf(stderr, "%s\n", dlerror()), 1;
    plugin = (int (*)(int))(long)dlsym(library, "plugin");
    return plugin ? serve() : 1;
}
#endif
