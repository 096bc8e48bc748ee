//#ExpectVerdict: safe
//#ExpectChanged: wait_for_work
/* A thread that is asleep inside the function that the update changes, for as
 * long as the first byte of the file argv[1] is 'w'. */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

__attribute__((noipa)) long wait_for_work(int fd, long seed) {
    struct timespec pause = {0, 20000000};
    char state = 'w';
    do {
        nanosleep(&pause, NULL);
        if (pread(fd, &state, 1, 0) != 1)
            return -1;
    } while (state == 'w');
    return seed * 3 + (NEW ? 200 : 100);
}

int main(int argc, char **argv) {
    struct timespec pause = {0, 20000000};
    int fd = argc == 2 ? open(argv[1], O_RDONLY) : -1;
    if (fd < 0)
        return 2;
    puts("ready");
    for (long turn = 0;; turn++) {
        printf("got %ld\n", wait_for_work(fd, turn) - turn * 3);
        fflush(stdout);
        nanosleep(&pause, NULL);
    }
}
