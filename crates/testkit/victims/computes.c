//#ExpectVerdict: safe
//#ExpectChanged: changed
/* Half of its time goes into changed code, in short calls: what a profiler sees. */
#include <stdio.h>
#include <unistd.h>

#define KEEP __attribute__((noipa))

KEEP unsigned changed(unsigned number) {
    for (int round = 0; round < 20000; round++)
        number = number * 1664525u + (NEW ? 1013904223u : 1013904221u);
    return number;
}

KEEP unsigned same(unsigned number) {
    for (int round = 0; round < 20000; round++)
        number = number * 22695477u + 1u;
    return number;
}

int main(void) {
    puts("ready");
    fflush(stdout);
    /* It ends by itself if nobody ends it. */
    alarm(120);
    for (unsigned number = 1;;)
        number = same(changed(number));
}
