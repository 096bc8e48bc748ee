//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* A handshake gets one more step between two; those who are past it have the number of another. */
struct hs {
    int state, ok;
    long sent;
};

int hs_step(struct hs *h, long in) {
    switch (h->state) {
    case 0:
        if (in != 1)
            return -1;
        h->sent += 10;
        break;
    case 1:
        if (in < 5)
            return -1;
        h->sent ^= in;
        break;
#if NEW
    case 2:
        if (in % 7)
            return -7;
        h->ok |= 2;
        break;
    case 3:
#else
    case 2:
#endif
        h->ok |= 1;
        h->sent = 0;
        break;
    default:
        return 1;
    }
    h->state++;
    return 0;
}

int hs_open(struct hs *h) {
    return h->ok & 1;
}
