//#Flags: -static-libstdc++ -static-libgcc
//#ExpectVerdict: refused
//#ExpectReason: exceptions
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: clang -O2
/* Exceptions pass through a replaced function, and the runtime that throws is inside the program. */
#include <cstdio>
#include <cstdlib>
#include <unistd.h>
__attribute__((noinline)) int parse(int k) { if (k > 3) throw k; return k; }
__attribute__((noinline)) int step(int k) { int r = parse(k); return r * (NEW ? 5 : 7) + parse(k - 1); }
int main(int argc, char **) {
    for (int i = 0; i < 100; i++) {
        try { std::printf("%d\n", step(argc + i % 6)); } catch (int k) { std::printf("caught %d\n", k); }
        usleep(1000);
    }
}
