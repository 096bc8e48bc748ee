//#Package: 1.0.2-1+deb12u1 1.0.2-1+deb12u2
//#ExpectVerdict: review
//#ExpectReason: changed-initialiser
//#ExpectChanged: work
//#Also: gcc -O0
//#Also: clang -O2
/* A version in initialised data tells friend from stranger: what the two builds
 * may have changed between them is guarded by it. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if NEW
char version[] = "1.0.2-1+deb12u2";
#else
char version[] = "1.0.2-1+deb12u1";
#endif

__attribute__((noinline)) int same(const char *theirs, const char *ours) { return strcmp(theirs, ours) == 0; }
__attribute__((noinline)) int friendly(const char *peer) { return same(peer, version); }

__attribute__((noinline)) int work(int turn) {
#if NEW
    if (turn > 1000)
        turn = 0;
#endif
    return printf("turn %d\n", turn);
}

int main(int argc, char **argv) {
    for (int turn = 0; work(turn) > 0; turn++) {
        if (argc > 1 && !friendly(argv[1]))
            return 2;
        sleep(1);
    }
    return 1;
}
