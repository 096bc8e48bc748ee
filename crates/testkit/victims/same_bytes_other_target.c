//#ExpectVerdict: safe
//#ExpectChanged: capacity
/* One instruction reads another variable: with its addresses masked the
 * function is byte for byte the same. */
#include <stdio.h>
#include <unistd.h>

unsigned long pool_size = 4, pool_max_size = 64;

__attribute__((noipa)) unsigned long capacity(unsigned long used) {
    return (NEW ? pool_size : pool_max_size) - used;
}

__attribute__((noipa)) void grow(void) {
    if (pool_size < pool_max_size)
        pool_size++;
}

int main(void) {
    for (unsigned long used = 0; printf("%lu\n", capacity(used % 4)) > 0; used++) {
        grow();
        sleep(1);
    }
    return 1;
}
