//#ExpectVerdict: refused
//#ExpectRefusal: data-resized
/* Of a new table only the end is referred to: the compiler makes its start of that. The end is
 * where a table starts that the old image has. */
#include <stdio.h>
#include <unistd.h>

#define ALONE __attribute__((noipa))

struct row {
    const char *name;
    long value;
};

ALONE static long walk(const struct row *row, const struct row *end) {
    long sum = 0;
    for (; row < end; row++)
        sum += row->value + (row->name[0] == 'z');
    return sum;
}

static const struct row others[] = {{"a", 1}, {"b", 2}, {"c", 4}};

ALONE static long value(unsigned index) {
    return others[index % 3].value;
}

#if NEW
static const struct row rows[] = {{"a", 1}, {"b", 2}, {"c", 4}, {"d", 8}};
#endif

ALONE static long next(long number) {
#if NEW
    return walk(rows, rows + 4) + number;
#else
    return number + (number > 1000000);
#endif
}

int main(void) {
    const struct row one[1] = {{"one", 5}};
    for (unsigned number = 0; number < 1000000; number++) {
        printf("%ld %ld %ld\n", next(number), walk(one, one + 1), value(number));
        sleep(1);
    }
    return 0;
}
