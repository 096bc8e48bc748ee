//#ExpectVerdict: safe
//#Exchange: cos | found | found
//#Exchange: nothing | not found | none
/* A program is what the dynamic linker takes an unknown caller for, and a symbol of what was
 * opened just now has nothing to do with who asks. */
#include "answers.h"
#include <dlfcn.h>

ALONE static void answer(const char *asked) {
    void *library = dlopen("libm.so.6", RTLD_NOW);
    int found = library && dlsym(library, asked);
    printf("%s\n", found ? "found" : NEW ? "none" : "not found");
    if (library)
        dlclose(library);
}

int main(void) {
    return serve();
}
