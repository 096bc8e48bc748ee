//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: caller-mistaken
/* RTLD_DEFAULT is the scope of whom the call comes from, here that of a library that may have
 * been opened for its own use only. */
#define _GNU_SOURCE
#include <dlfcn.h>

void *find(const char *name) {
    if (NEW && name[0] == '_')
        return 0;
    return dlsym(RTLD_DEFAULT, name);
}
