//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: constant-address
//#ExpectChanged: rest
/* The loop begins where an object says that it stopped: what old code left there is an address
 * in the old image's table, and never comes to the end of the other one. */
#include <stdio.h>

struct size {
    int width, height;
};
static const struct size sizes[] = {{3, 5}, {11, 13}, {19, 23}, {31, 37}, {43, 47}};

struct cursor {
    const struct size *at;
};

void begin(struct cursor *cursor) {
    cursor->at = sizes;
}

int rest(struct cursor *cursor, int limit) {
    int sum = 0;
#if NEW
    if (limit < 0)
        return -1;
#endif
    while (cursor->at != sizes + 5 && sum < limit) {
        sum += cursor->at->width * cursor->at->height;
        printf("%d\n", sum);
        cursor->at++;
    }
    return sum;
}
