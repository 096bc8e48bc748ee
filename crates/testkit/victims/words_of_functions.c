//#Kind: library
//#ExpectVerdict: refused
//#ExpectReason: data-changed
/* A row names another function: what the one opened the other would close. */
__attribute__((noinline)) static int open_one(int handle) { return handle + 1; }
__attribute__((noinline)) static int close_one(int handle) { return handle - 1; }
__attribute__((noinline)) static int open_other(int handle) { return handle + 10; }
__attribute__((noinline)) static int close_other(int handle) { return handle - 10; }

struct operations {
    int (*open)(int);
    int (*close)(int);
};

static const struct operations rows[] = {
#if NEW
    {open_other, close_other},
#else
    {open_one, close_one},
#endif
    {open_one, close_one},
    {open_other, close_other}};

__attribute__((noinline)) int use(unsigned row, int handle, int closing) {
    return closing ? rows[row % 3].close(handle) : rows[row % 3].open(handle);
}

__attribute__((noinline)) const char *called(void) { return "operations"; }
