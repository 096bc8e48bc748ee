//#ExpectVerdict: safe
//#ExpectChanged: answer
/* A service that shuts itself into the directory argv[1] once it has started. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

__attribute__((noipa)) long answer(long seed) { return seed * 5 + (NEW ? 200 : 100); }

int main(int argc, char **argv) {
    struct timespec pause = {0, 20000000};
    if (argc < 2 || chroot(argv[1]) || chdir("/"))
        return 2;
    for (long turn = 0;; turn++) {
        printf("got %ld\n", answer(turn) - turn * 5);
        fflush(stdout);
        nanosleep(&pause, NULL);
    }
}
