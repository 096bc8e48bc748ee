//#Kind: library
//#ExpectVerdict: safe
//#ExpectChanged: widest
//#AlsoUnnamed: gcc -O3
//#AlsoUnnamed: clang -O2
/* A loop over a table ends where a pointer that came from its start is at its end. Both are
 * addresses of the table that the loop's own code refers to: nobody kept one. */
#include <stdio.h>

static const struct {
    int width, height, depth;
} sizes[] = {{3, 5, 7}, {11, 13, 17}, {19, 23, 29}, {31, 37, 41}, {43, 47, 53}};

int widest(int limit) {
    int most = 0;
#if NEW
    if (limit < 0)
        return -1;
#endif
    for (unsigned row = 0; row < sizeof sizes / sizeof *sizes; row++) {
        int area = sizes[row].width * sizes[row].height;
        if (area < limit && area > most) {
            most = area;
            printf("%d of %d\n", area, sizes[row].depth);
        }
    }
    return most;
}
