//#Package: 1.0.2-1+deb12u1 1.0.2-1+deb12u2
//#ExpectVerdict: unchanged
//#ExpectNoise: print_version
/* Nothing differs but a version that is printed for people. */
#include <stdio.h>
#include <unistd.h>

__attribute__((noipa)) void print_version(void) {
#if NEW
    printf("victim version 1.0.2-1+deb12u2, built 2026/05/02\n"); fflush(stdout);
#else
    printf("victim version 1.0.2-1+deb12u1, built 2025/11/12\n"); fflush(stdout);
#endif
}

__attribute__((noipa)) int work(int turn) { return printf("turn %d\n", turn); }

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1)
        print_version();
    for (int turn = 0; work(turn) > 0; turn++)
        sleep(1);
    return 1;
}
