//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: field-offset
/* Ends of a range are looked at in another order, with other bounds: the same fields, of which none
 * moved. */
struct range {
    long lower, upper;
};

long side(const struct range *range, long value) {
#if NEW
    if (value >= range->upper)
        return value == range->upper ? 3 : 2;
    return range->lower > value ? -1 : 0;
#else
    if (value < range->lower)
        return -1;
    return range->upper < value;
#endif
}

long weight(const struct range *range, long value) {
#if NEW
    if (value > range->upper)
        return value * 3;
    return range->lower > value ? 8 : 4;
#else
    if (value < range->lower)
        return 8;
    return range->upper < value ? 40 : 30;
#endif
}

int is_empty(const struct range *range) {
    return range->lower > range->upper;
}
