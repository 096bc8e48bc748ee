//#Package: 1.0.2-1+deb12u1 1.0.2-1+deb12u2
//#ExpectVerdict: review
//#ExpectReason: changed-initialiser
//#ExpectChanged: work
//#Also: gcc -O0
//#Also: clang -O2
/* Replaced code calls code that stays and that examines the version in data: it
 * would be told the old one. */
#include <stdio.h>
#include <unistd.h>

#if NEW
char version[] = "1.0.2-1+deb12u2";
#else
char version[] = "1.0.2-1+deb12u1";
#endif

__attribute__((noinline)) int revision(void) {
    const char *p = version;
    while (*p && *p != 'u')
        p++;
    return *p ? p[1] - '0' : 0;
}

__attribute__((noinline)) int work(int turn) {
#if NEW
    if (revision() < 2)
        return -1;
#endif
    return printf("turn %d of %d\n", turn, revision());
}

int main(void) {
    for (int turn = 0; work(turn) > 0; turn++)
        sleep(1);
    return 1;
}
