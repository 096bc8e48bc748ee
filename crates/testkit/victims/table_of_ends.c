//#ExpectVerdict: refused
//#ExpectRefusal: data-resized
/* A new table holds the ends of variables. The end of one is where the next one starts, and in
 * the old image there is another one between them. */
#include <stdio.h>
#include <unistd.h>

#define ALONE __attribute__((noipa))

int first[4] = {1, 2, 3, 4};
#if !NEW
int gone[2] = {100, 200};
#endif
int second[4] = {10, 20, 30, 40};

struct span {
    const int *from, *end;
};
#if NEW
static const struct span spans[] = {{first, first + 4}, {second, second + 4}};
#endif

ALONE static int sum(const int *from, const int *end) {
    int sum = 0;
    while (from < end)
        sum += *from++;
    return sum;
}

ALONE static int of_first(unsigned index) {
    return first[index & 3];
}

ALONE static int of_second(unsigned index) {
    return second[index & 3];
}

ALONE static int shown(unsigned number) {
#if NEW
    return sum(spans[number & 1].from, spans[number & 1].end);
#else
    return ++gone[number & 1];
#endif
}

int main(void) {
    for (unsigned number = 0; number < 1000000; number++) {
        printf("%d %d %d %d\n", shown(number), of_first(number), of_second(number), sum(first, first + 2));
        sleep(1);
    }
    return 0;
}
