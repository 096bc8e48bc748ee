//#ExpectVerdict: refused
//#ExpectRefusal: role-unproven
//#Flags: -s
/* No instruction and no relocation leads to the function that differs: a distance in a table does. */
#include <stdio.h>
#include <unistd.h>

__attribute__((used, noipa)) int changed(int k) {
    return k * 5 + (NEW ? 3 : 4);
}

__asm__(".pushsection .rodata\n.balign 4\ndistances: .long 1, changed - distances\n.popsection");
extern const int distances[] __attribute__((visibility("hidden")));

int main(int count, char **arguments) {
    (void)arguments;
    int (*function)(int) = (int (*)(int))((const char *)distances + distances[count]);
    while (printf("%d\n", function(getpid())) > 0)
        sleep(1);
    return 1;
}
