//#ExpectVerdict: refused
//#ExpectReason: not-validated
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: clang -O2
/* A new thread-local variable moves the old one. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static __thread int depth;
#if NEW
static __thread int warned;
#endif
__attribute__((noinline)) int enter(int k) {
#if NEW
    if (depth > 5 && !warned++) write(2, "deep\n", 5);
#endif
    return depth += k;
}
__attribute__((noinline)) int leave(int k) { return depth -= k; }
int main(int argc, char **argv) { (void)argv; printf("%d %d\n", enter(argc), leave(argc)); return 0; }
