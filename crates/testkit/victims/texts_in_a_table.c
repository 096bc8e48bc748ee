//#Kind: library
//#ExpectVerdict: safe
//#ExpectChanged: explain
//#AlsoUnnamed: gcc -O3
/* A table of texts that only the changed function reads lies among others of its kind. Nobody
 * writes it once it is loaded and it says the same in both images: which one it is does not matter. */
#include <stdio.h>

static const char *const reasons[] = {"done", "not found", "not allowed", "no room", "no answer"};
static const char *const moods[] = {"calm", "busy", "tired"};
static const char *const sides[] = {"left", "right", "middle"};

const char *mood(unsigned now) {
    return now < 3 ? moods[now] : "unknown";
}

const char *explain(int result) {
    if (result == 0x40)
        return "interrupted";
    result = -result;
#if NEW
    if (result < 0 || result >= 5)
        return "for another reason";
#else
    if (result >= 5)
        return "for another reason";
#endif
    return reasons[result];
}

void turn(unsigned side) {
    printf("to the %s\n", side < 3 ? sides[side] : "back");
}
