//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: shared-state
/* A field is gone; the two functions that use those behind it are written anew. */
struct a {
    int x;
#if !NEW
    int gone;
#endif
    int y;
    int z;
    long w;
};

int st(int *p) {
    return p[0] + p[1] + p[2] + p[3];
}

int st2(int *p) {
    return p[0] - p[1] * p[2] + p[3];
}

int f1(struct a *a) {
#if NEW
    return a->y ? a->x / a->y : 0;
#else
    return a->x + a->gone + (a->y >> 1);
#endif
}

void f2(struct a *a, int k) {
#if NEW
    a->y ^= k;
#else
    a->gone = 0;
    a->y = k;
#endif
}
