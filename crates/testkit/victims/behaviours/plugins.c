//#ExpectVerdict: safe
//#Images: program plugin:one
//#Exchange: open 0 lib/libone.so | open | open
//#Exchange: ask 0 5 | 10 | 11
/* A program that opens and closes libraries as it is told: `open SLOT FILE`, `own SLOT FILE` (in a
 * namespace of its own), `close SLOT`, `ask SLOT NUMBER`. FILE is beside the program's directory. */
#define _GNU_SOURCE
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
#include <unistd.h>

static void *libraries[4];

static void answer(const char *asked) {
    char what[16], rest[200], path[512];
    int slot = 0;
    if (sscanf(asked, "%15s %d %199s", what, &slot, rest) < 2 || slot < 0 || slot > 3) {
        puts("what?");
    } else if (!strcmp(what, "close")) {
        puts(libraries[slot] && !dlclose(libraries[slot]) ? "closed" : "not closed");
        libraries[slot] = NULL;
    } else if (!strcmp(what, "ask")) {
        int (*plugin)(int) = libraries[slot] ? (int (*)(int))(long)dlsym(libraries[slot], "plugin") : NULL;
        if (plugin)
            printf("%d\n", plugin(atoi(rest)));
        else
            puts("not open");
    } else {
        long length = readlink("/proc/self/exe", path, sizeof path - 1);
        char *name = NULL;
        path[length > 0 ? length : 0] = '\0';
        for (int up = 0; up < 2; up++)
            if ((name = strrchr(path, '/')))
                *name = '\0';
        if (rest[0] != '/') {
            strncat(path, "/", sizeof path - strlen(path) - 1);
            strncat(path, rest, sizeof path - strlen(path) - 1);
        } else {
            snprintf(path, sizeof path, "%s", rest);
        }
        if (!libraries[slot])
            libraries[slot] = strcmp(what, "own") ? dlopen(path, RTLD_NOW) : dlmopen(LM_ID_NEWLM, path, RTLD_NOW);
        puts(libraries[slot] ? "open" : dlerror());
    }
}

int main(void) {
    return serve();
}
#endif
