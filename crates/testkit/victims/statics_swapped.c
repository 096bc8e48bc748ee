//#ExpectVerdict: refused
//#ExpectRefusal: new-data
/* Two variables that only replaced code uses change places: their neighbours stay where they were. */
#include <stdio.h>
#include <unistd.h>

#if NEW
static int first, second;
#else
static int second, first;
#endif
__attribute__((noinline, noipa)) int mix(int k) {
#if NEW
    second += k;
    first *= 3;
    return first - second + 1;
#else
    first *= 3;
    second += k;
    return first - second;
#endif
}

int main(void) {
    while (printf("%d\n", mix(getpid())) > 0)
        sleep(1);
    return 1;
}
