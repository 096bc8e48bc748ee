//#ExpectVerdict: review
//#ExpectReason: caller-mistaken
/* A replaced function asks the dynamic linker in which image a constant of its own lies: the
 * payload's copy lies in none. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

#ifdef __clang__
#define ALONE __attribute__((noinline))
#else
#define ALONE __attribute__((noipa))
#endif

static const int anchor = 7;

ALONE static const char *where(int number) {
    Dl_info found;
    if (NEW && number < 0)
        return "nowhere";
    return dladdr(&anchor, &found) ? found.dli_fname : NULL;
}

int main(void) {
    for (int i = 0;; i++) {
        puts(where(i));
        sleep(1);
    }
}
