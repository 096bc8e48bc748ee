//#Kind: library
//#Flags: -fno-exceptions -fno-rtti
//#ExpectVerdict: refused
//#ExpectReason: data-changed
//#AlsoUnnamed: gcc -O0
//#AlsoUnnamed: clang -O2
#include <new>
/* A virtual function is inserted: objects that exist have the old table. */
struct shape {
    virtual long area(long k);
#if NEW
    virtual long edges(long k);
#endif
    virtual long name(long k);
    long v;
};
__attribute__((noinline)) long shape::area(long k) { return v * k; }
#if NEW
__attribute__((noinline)) long shape::edges(long k) { return v + k; }
#endif
__attribute__((noinline)) long shape::name(long k) { return v - k; }
__attribute__((noinline)) long use(shape *s) { return s->name(3) + (NEW ? 1 : 0); }
__attribute__((noinline)) long use2(shape *s) { return s->area(3); }
__attribute__((noinline)) shape *make(void *p) { return new (p) shape; }
