//#ExpectVerdict: safe
//#ExpectChanged: changed
//#Flags: -fno-omit-frame-pointer
/* Nearly all of its time goes into a function that changed code calls: a profiler that
 * walks by frame pointers sees it below changed code and above unchanged. */
#include <stdio.h>
#include <unistd.h>

#define KEEP __attribute__((noipa))

KEEP unsigned inner(unsigned number) {
    /* A function that calls nothing gets a frame only if it asks for it. */
    __asm__ volatile("" : : "r"(__builtin_frame_address(0)));
    for (int round = 0; round < 20000; round++)
        number = number * 22695477u + 1u;
    return number;
}

KEEP unsigned changed(unsigned number) {
    number = inner(number ^ 0x5a);
    return number * 1664525u + (NEW ? 1013904223u : 1013904221u);
}

KEEP unsigned outer(unsigned number) {
    number = changed(number + 1);
    return number ^ 1;
}

int main(void) {
    puts("ready");
    fflush(stdout);
    /* It ends by itself if nobody ends it. */
    alarm(120);
    for (unsigned number = 1;;)
        number = outer(number);
}
