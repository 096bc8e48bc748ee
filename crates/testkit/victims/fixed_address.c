//#ExpectVerdict: refused
//#ExpectRefusal: fixed-address
//#Flags: -no-pie -fno-pie
/* Dynamically linked, and linked to fixed addresses. */
#include <stdio.h>
#include <unistd.h>

__attribute__((noipa)) int answer(int seed) { return seed * 3 + (NEW ? 200 : 100); }

int main(void) {
    for (int last = 0;;) {
        int got = answer(0);
        if (got != last)
            printf("got %d\n", got);
        fflush(stdout);
        last = got;
        usleep(1000);
    }
}
