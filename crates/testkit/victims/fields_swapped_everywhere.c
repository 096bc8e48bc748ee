//#Kind: library
//#ExpectVerdict: refused
//#ExpectRefusal: struct-layout
/* Two fields changed places, and each function that uses one uses the other: the same offsets as
 * before, with another meaning. */
struct account {
#if NEW
    long limit, balance;
#else
    long balance, limit;
#endif
    long turnover;
};

long credit(const struct account *account) {
    return account->limit * 2 + account->balance;
}

int withdraw(struct account *account, long amount) {
    if (amount > account->limit)
        return -1;
    account->balance -= amount;
    account->turnover += amount;
    return 0;
}

void lend(struct account *account, long amount) {
    account->limit += amount;
    if (account->balance < 0)
        account->balance = 0;
}
