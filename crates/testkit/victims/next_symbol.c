//#ExpectVerdict: refused
//#ExpectReason: caller-unknown
/* The linker says what comes after the image that the call comes from. A payload is none:
 * there, nothing does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

__attribute__((noinline)) static int parent(int number) {
    if (number > (NEW ? 900 : 1000))
        return 0;
    int (*next)(void) = (int (*)(void))dlsym(RTLD_NEXT, "getppid");
    return next ? next() : -1;
}

int main(void) {
    for (int number = 0; printf("%d\n", parent(number)) > 0; number++)
        sleep(1);
    return 1;
}
