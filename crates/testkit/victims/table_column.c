//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: read-only-data-changed
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: gcc -O3 -fcf-protection=full
//#AlsoUnnamed: clang -O2
/* A row of a table changes. Unoptimised, the replaced function refers to the
 * second column and nobody to the changed row itself. */
static const int table[8][2] = {
    {1, 2}, {3, 4}, {5, 6}, {7, 8}, {9, 10},
#if NEW
    {99, 12},
#else
    {11, 12},
#endif
    {13, 14}, {15, 16}};

__attribute__((noinline)) int first(unsigned i) { return table[i & 7][0]; }
__attribute__((noinline)) int second(unsigned i) {
#if NEW
    if (i > 6)
        return -1;
#endif
    return table[i & 7][1] * 3;
}
