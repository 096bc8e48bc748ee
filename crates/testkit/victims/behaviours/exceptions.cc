//#ExpectVerdict: refused
//#ExpectRefusal: exceptions
/* The changed function throws, and is thrown through. Without its unwinding tables known to the
 * running program that would end in terminate(). */
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
extern "C" {
#include "answers.h"
}

ALONE static int changed(int number) {
#if NEW
    if (number > 100)
        throw std::out_of_range("over a hundred");
#else
    if (number > 1000)
        throw std::out_of_range("over a thousand");
#endif
    return number;
}

static void answer(const char *asked) {
    try {
        std::printf("%d\n", changed(std::atoi(asked)));
    } catch (const std::exception &error) {
        std::puts(error.what());
    }
}

int main() {
    return serve();
}
