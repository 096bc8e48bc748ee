//#Package: 1.0.2-1+deb12u1 1.0.2-1+deb12u2
//#ExpectVerdict: review
//#ExpectReason: changed-initialiser
//#ExpectChanged: work
//#Also: gcc -O0
//#AlsoUnnamed: clang -O2
/* A version in initialised data does not hide that the limit behind it changed. */
#include <stdio.h>
#include <unistd.h>

struct about {
    char version[20];
    int limit;
};
#if NEW
struct about about = {"1.0.2-1+deb12u2", 100};
#else
struct about about = {"1.0.2-1+deb12u1", 1000};
#endif

__attribute__((noinline)) int print_version(void) { return puts(about.version); }
__attribute__((noinline)) int within(int turn) { return turn < about.limit; }

__attribute__((noinline)) int work(int turn) {
#if NEW
    if (turn < 0)
        turn = 0;
#endif
    return printf("turn %d\n", turn);
}

int main(void) {
    for (int turn = 0; within(turn) && work(turn) > 0; turn++)
        sleep((unsigned)print_version() % 2 + 1);
    return 1;
}
