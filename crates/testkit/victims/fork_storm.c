//#ExpectVerdict: safe
//#ExpectChanged: answer
/* A parent that forks all the time, and children that stay or go: whenever the
 * parent is changed, some child was forked just before and some are going. */
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

__attribute__((noipa)) long answer(long seed) { return seed * 5 + (NEW ? 200 : 100); }

static void rest(long milliseconds) {
    struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

int main(void) {
    signal(SIGCHLD, SIG_IGN);
    puts("ready");
    fflush(stdout);
    for (long turn = 0;; turn++) {
        rest(10);
        if (fork() == 0) {
            for (int round = 0; round < (turn % 4 ? 3000 : 20); round++) {
                if (answer(turn) < 0)
                    return 1;
                rest(10);
            }
            return 0;
        }
    }
}
