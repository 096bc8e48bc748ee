//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: caller-mistaken
/* Where a library of that name is, the run path of this one may say. */
#include <dlfcn.h>
#include <stdio.h>

void *open_module(const char *name) {
    char file[64];
    snprintf(file, NEW ? sizeof file : 100, "%s.so", name);
    return dlopen(file, RTLD_NOW);
}
