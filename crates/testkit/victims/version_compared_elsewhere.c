//#Package: 1.2.3-1+deb12u1 1.2.4-1+deb12u1
//#ExpectVerdict: review
//#ExpectReason: names-mixed
//#ExpectNoise: greet
//#ExpectChanged: check
/* A greeting with the version is formatted into memory by code that stays; a function that changes
 * compares with it, and has the new version in its own text. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#if NEW
#define VERSION "1.2.4"
#else
#define VERSION "1.2.3"
#endif
static char greeting[64], line[256];

static __attribute__((noipa)) void put(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(greeting, sizeof greeting, format, arguments);
    va_end(arguments);
}

static __attribute__((noipa)) void greet(int of) {
    put("server %d " VERSION " ready", of);
}

static __attribute__((noipa)) int check(const char *said, int len) {
    (void)len;
#if NEW
    if (len < 0 || len > 200)
        return -1;
#endif
    return strncmp(said, "server 7 " VERSION " ready", 20) == 0;
}

int main(void) {
    while (fgets(line, sizeof line, stdin)) {
        greet(7);
        printf("%d\n", check(greeting, (int)strlen(line)));
    }
    return 0;
}
