//#ExpectVerdict: safe
/* A function that stays notes who called it last, for people to read. */
#include <stdio.h>
#include <unistd.h>

static const void *volatile last;

__attribute__((noinline)) static int noted(int number) {
    last = __builtin_return_address(0);
    __asm__ volatile("" : "+r"(number));
    return number + 1;
}

__attribute__((noinline)) static int checked(int number) {
    if (number > (NEW ? 900 : 1000))
        return 0;
    return noted(number) * 2;
}

int main(void) {
    for (int i = 0;; i++) {
        printf("%d %d\n", checked(i), noted(i));
        usleep(1000);
    }
}
