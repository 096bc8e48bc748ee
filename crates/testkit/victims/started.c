//#ExpectVerdict: safe
//#ExpectChanged: answer
/* A program that tells how it was started: what it answers first, whether its
 * entry is its own, whether it has children that it knows nothing of, what it
 * was handed. argv[1] is its exit status, argv[2] a file to be made. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

extern void _start(void);

__attribute__((noipa)) long answer(long seed) { return seed * 5 + (NEW ? 200 : 100); }

int main(int argc, char **argv) {
    char line[64] = "";
    int open_descriptors = 0;
    for (int fd = 3; fd < 64; fd++)
        open_descriptors += lseek(fd, 0, SEEK_CUR) != -1 || errno != EBADF;
    if (argc > 2 && !fopen(argv[2], "w"))
        return 99;
    int lonely = wait(NULL) == -1 && errno == ECHILD;
    int own_entry = getauxval(AT_ENTRY) == (unsigned long)_start;
    if (!fgets(line, sizeof line, stdin))
        line[0] = 0;
    for (long turn = 0; turn < 3; turn++)
        printf("answer %ld\n", answer(turn) - turn * 5);
    printf("pid %d entry %d lonely %d descriptors %d stdin %s\n", getpid(), own_entry, lonely, open_descriptors, line);
    fflush(stdout);
    if (getenv("LINGER"))
        pause();
    return argc > 1 ? atoi(argv[1]) : 0;
}
