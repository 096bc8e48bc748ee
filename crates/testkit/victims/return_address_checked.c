//#ExpectVerdict: review
//#ExpectReason: caller-mistaken
/* A function that stays asks whether it is called from this program; from a payload it is not. */
#include <stdio.h>
#include <unistd.h>

extern char __executable_start[], etext[];

__attribute__((noinline)) static int asked_from_here(int number) {
    const char *from = __builtin_return_address(0);
    __asm__ volatile("" : "+r"(number));
    return from >= __executable_start && from < etext ? number + 1 : -1;
}

__attribute__((noinline)) static int checked(int number) {
    if (number > (NEW ? 900 : 1000))
        return 0;
    return asked_from_here(number) * 2;
}

int main(void) {
    for (int i = 0;; i++) {
        printf("%d %d\n", checked(i), asked_from_here(i));
        usleep(1000);
    }
}
