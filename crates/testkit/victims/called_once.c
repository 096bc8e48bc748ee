//#ExpectVerdict: review
//#ExpectChanged: setup
/* What main calls once, before its loop, has run when a livepatch arrives. */
#include <stdio.h>
#include <unistd.h>

static int limit;

__attribute__((noinline, noipa)) void setup(int asked) {
    limit = asked * 3;
#if NEW
    if (limit > 100)
        limit = 100;
#endif
}

__attribute__((noinline, noipa)) int work(int k) { return k % (limit + 1); }

int main(int count, char **arguments) {
    (void)arguments;
    setup(count);
    while (printf("%d\n", work(getpid())) > 0)
        sleep(1);
    return 1;
}
