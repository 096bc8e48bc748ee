//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
//#ExpectChanged: step
/* A function tells its state by several numbers. The fix queues a character above the state's
 * bits: old code, which runs again after a revert, takes such a state for another number. */
#include <stddef.h>

struct conversion {
    int state;
};

int step(struct conversion *conversion, int byte) {
    int state = conversion->state;
#if NEW
    int queued = state >> 7;
    state &= 0x7f;
    if (queued != 0) {
        conversion->state = state;
        return queued;
    }
#endif
    if (state == 0 && byte == 0x0e) {
        conversion->state = 0x40;
        return -1;
    }
    if (state == 0x40 && byte == 0x0f) {
        conversion->state = 0;
        return -1;
    }
#if NEW
    if (byte > 0x7f)
        conversion->state = (byte & 0x7f) << 7 | state;
#endif
    return state == 0x40 ? byte + 0x100 : byte;
}
