//#ExpectVerdict: safe
//#Exchange: 1 | 55 55.5 | 56 65.5
/* Arguments in registers of both kinds and on the stack arrive as they were. */
#include "answers.h"

ALONE static long integers(long a, long b, long c, long d, long e, long f, long g, long h, long i, long j) {
    long sum = a + b + c + d + e + f + g + h + i + j;
#if NEW
    sum++;
#endif
    return sum;
}

ALONE static double floats(double a, double b, double c, double d, double e, double f, double g, double h, double i,
                           double j, int k, long double l) {
    double sum = a + b + c + d + e + f + g + h + i + j + k + (double)l;
#if NEW
    sum += 10;
#endif
    return sum;
}

static void answer(const char *asked) {
    long n = atol(asked);
    printf("%ld ", integers(n, 2, 3, 4, 5, 6, 7, 8, 9, 10));
    printf("%.1f\n", floats((double)n, 2, 3, 4, 5, 6, 7, 8, 9, 0, 10, 0.5L));
}

int main(void) {
    return serve();
}
