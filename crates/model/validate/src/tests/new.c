// The new program: `parse` is bounded by an added function and has a jump table of
// its own, `banner` and `line` differ in noise, a variable and constants moved.
extern int puts(const char *);
extern char *getenv(const char *);
extern int abs(int);

#define APART __attribute__((noinline, noclone))

static int counter = 7;
static int pool_size = 16;
static int pool_max_size = 64;
static int seen;
static const int weights[8] = {3, 1, 4, 1, 5, 9, 2, 6};

APART static int helper(int x) { counter += x; return weights[x & 7] + abs(x); }
APART int get_pool_size(void) { return pool_size; }
APART int get_pool_max_size(void) { return pool_max_size; }
APART void set_pool(int a, int b) { pool_size = a; pool_max_size = b; seen++; }

APART static int first(int x) { return x + counter; }
APART static int second(int x) { return x - counter; }
static int (*const table[4])(int) = {first, second, first, helper};
int (*hook)(int) = helper;
APART int refresh(void) { hook = second; return get_pool_size(); }
const char *const names[3] = {"alpha", "beta", "gamma"};

APART static int bound(int n) { return n > 1000 ? puts("a much longer complaint than before") : n; }

APART int choose(int k)
{
	switch (k) {
	case 0: return helper(1);
	case 1: return first(2);
	case 2: return second(3);
	case 3: return puts("three");
	case 4: return helper(44) ^ 3;
	case 5: return first(5) * 7;
	case 6: return second(66) + 9;
	default: return -1;
	}
}

APART const char *banner(void) { return "version 1.1"; }
APART int line(void) { return abs(counter) + 101; }

#ifdef DISTANCES
__asm__(".pushsection .rodata\n.balign 4\ndistances: .long first - ., second - .\n.popsection");
extern const int distances[] __attribute__((visibility("hidden")));
#endif

APART int parse(const char *p)
{
	int n = 0;
	while (*p && n < pool_max_size)
		n += helper(*p++);
	switch (bound(n)) {
	case 3: n = first(n); break;
	case 4: n = second(n) * 5; break;
	case 5: n = puts("five"); break;
	case 6: hook = first; break;
	case 7: n ^= get_pool_size(); break;
	case 8: n = getenv("LIMIT") != 0; break;
	case 9: hook = bound; break;
	}
#ifdef DISTANCES
	const int *at = &distances[n & 1];
	n += ((int (*)(int))((const char *)at + *at))(n);
#endif
	return n + seen;
}

APART int caller(const char *p) { return parse(p) + table[parse(p) & 3](1) + (getenv("SALVE") != 0); }
