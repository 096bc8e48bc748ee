//#ExpectVerdict: unchanged
//#ExpectNoise: print_version
/* Nothing differs but a version that is printed for people. */
#include <stdio.h>
#include <unistd.h>

__attribute__((noinline)) void print_version(void) {
#if NEW
    puts("victim version 1.0.2-1+deb12u2, built 2026/05/02");
#else
    puts("victim version 1.0.2-1+deb12u1, built 2025/11/12");
#endif
}

__attribute__((noinline)) int work(int turn) { return printf("turn %d\n", turn); }

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1)
        print_version();
    for (int turn = 0; work(turn) > 0; turn++)
        sleep(1);
    return 1;
}
