//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: data-unwitnessed
/* A table of texts where another one was: nobody bears witness that it is the one of before, and
 * it does not say the same. */
#include <stdio.h>

static const char *const moods[] = {"calm", "busy", "tired"};
#if NEW
static const char *const ends[] = {"ok", "lost", "denied", "full", "late"};
#else
static const char *const reasons[] = {"done", "not found", "not allowed", "no room", "no answer"};
#endif
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
    return ends[result];
#else
    if (result >= 5)
        return "for another reason";
    return reasons[result];
#endif
}

void turn(unsigned side) {
    printf("to the %s\n", side < 3 ? sides[side] : "back");
}
