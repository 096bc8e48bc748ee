//#ExpectVerdict: unchanged
//#ExpectReason: unreachable-code
//#Flags: -s
/* What differs is a function of which the program makes no use, as whole object files bring them along. */
#include <stdio.h>
#include <unistd.h>

__attribute__((used, noipa)) static int unused(int k) {
    return k * 5 + (NEW ? 3 : 4);
}

int main(void) {
    while (printf("%d\n", getpid()) > 0)
        sleep(1);
    return 1;
}
