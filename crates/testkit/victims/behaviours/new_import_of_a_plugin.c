//#ExpectVerdict: safe
//#Images: program plugin:two plugin:one
//#Exchange: 5 | 10 | 8
/* New code of one plug-in calls what another one exports, of which it has used something
 * before: neither names the other, nor does the program. */
#define _GNU_SOURCE
int base(int number);
int extra(int number);
int plugin(int number);
#ifdef IMAGE_two
__attribute__((noipa)) int base(int number) {
    return number * 2;
}

__attribute__((noipa)) int extra(int number) {
    return number + 3;
}
#elif defined(IMAGE_one)
__attribute__((noipa)) int plugin(int number) {
#if NEW
    return extra(number) + (base(number) < 0);
#else
    return base(number) + (number > 1000000);
#endif
}
#else
#include "answers.h"
#include <dlfcn.h>
#include <unistd.h>

static int (*plugged)(int);

static void *opened(const char *name) {
    char path[512];
    long length = readlink("/proc/self/exe", path, sizeof path - 1);
    path[length > 0 ? length : 0] = '\0';
    for (int up = 0; up < 2; up++)
        *strrchr(path, '/') = '\0';
    strncat(path, name, sizeof path - strlen(path) - 1);
    return dlopen(path, RTLD_NOW | RTLD_GLOBAL);
}

static void answer(const char *asked) {
    printf("%d\n", plugged(atoi(asked)));
}

int main(void) {
    void *two = opened("/lib/libtwo.so"), *one = opened("/lib/libone.so");
    plugged = two && one ? (int (*)(int))(long)dlsym(one, "plugin") : NULL;
    if (!plugged)
        fputs(dlerror(), stderr);
    return plugged ? serve() : 1;
}
#endif
