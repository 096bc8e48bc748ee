//#Package: 1.0.2-1+deb12u1 1.0.2-1+deb12u2
//#ExpectVerdict: safe
//#ExpectReason: build-name-kept
//#ExpectChanged: work
//#Also: gcc -O0
//#Also: clang -O2
/* A version in initialised data of which code that stays calculates something.
 * The process keeps the old text, so that code does what it always did. */
#include <stdio.h>
#include <unistd.h>

#if NEW
char version[] = "1.0.2-1+deb12u2";
#else
char version[] = "1.0.2-1+deb12u1";
#endif

__attribute__((noinline)) int at_least(int major, int minor) {
    const char *p = version;
    int ours = 0;
    for (; *p >= '0' && *p <= '9'; p++)
        ours = ours * 10 + *p - '0';
    return ours > major || (ours == major && p[1] - '0' >= minor);
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
    if (!at_least(1, argc))
        return 2;
    for (int turn = 0; work(turn) > 0; turn++)
        sleep(1);
    return 1;
}
