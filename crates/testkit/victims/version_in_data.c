//#Package: 1.0.2-1+deb12u1 1.0.2-1+deb12u2
//#ExpectVerdict: safe
//#ExpectReason: build-stamp
//#ExpectChanged: work
//#Also: gcc -O0
//#Also: clang -O2
/* A version in initialised data that everybody who gets at it only prints. */
#include <stdio.h>
#include <unistd.h>

#if NEW
char version[] = "victim 1.0.2-1+deb12u2";
#else
char version[] = "victim 1.0.2-1+deb12u1";
#endif

__attribute__((noinline)) void print_version(void) {
    fputs(version, stdout);
    fflush(stdout);
}

__attribute__((noinline)) int work(int turn) {
#if NEW
    if (turn > 1000)
        turn = 0;
#endif
    return printf("turn %d\n", turn);
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1)
        print_version();
    for (int turn = 0; work(turn) > 0; turn++)
        sleep(1);
    return 1;
}
