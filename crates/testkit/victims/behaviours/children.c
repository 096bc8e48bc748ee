//#ExpectVerdict: safe
//#Exchange: 5 | 5 child 5 | 6 child 6
/* What is forked off later is as its parent is. */
#include "answers.h"
#include <sys/wait.h>
#include <unistd.h>

ALONE static int changed(int number) {
#if NEW
    return number + 1;
#else
    return number;
#endif
}

static void answer(const char *asked) {
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(changed(atoi(asked)));
    if (child < 0 || waitpid(child, &status, 0) != child)
        exit(1);
    printf("%d child %d\n", changed(atoi(asked)), WEXITSTATUS(status));
}

int main(void) {
    return serve();
}
