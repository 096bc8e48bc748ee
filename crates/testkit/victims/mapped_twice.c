//#ExpectVerdict: safe
//#ExpectChanged: answer
/* Has its own code mapped a second time, as what loads itself or copies its
 * text does: which of the two runs cannot be told from outside. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

__attribute__((noipa)) long answer(long seed) { return seed * 5 + (NEW ? 200 : 100); }

int main(void) {
    struct timespec pause = {0, 20000000};
    int fd = open("/proc/self/exe", O_RDONLY);
    void *again = mmap(NULL, 0x2000, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0x1000);
    if (fd < 0 || again == MAP_FAILED)
        return 2;
    puts("ready");
    for (long turn = 0;; turn++) {
        printf("got %ld\n", answer(turn) - turn * 5);
        fflush(stdout);
        nanosleep(&pause, NULL);
    }
}
