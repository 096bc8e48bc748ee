//#ExpectVerdict: safe
//#Exchange: 5 | 6 | 10
/* Memory of this process never becomes executable once it is, or was, writable
 * (PR_SET_MDWE of Linux 6.3; MemoryDenyWriteExecute= of systemd). */
#include "answers.h"
#include <errno.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

ALONE static void answer(const char *asked) {
    int number = atoi(asked);
    printf("%d\n", NEW ? number + number : number + 1);
}

int main(void) {
    /* An older kernel knows no such thing, and then there is nothing to see here. */
    if (prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0 && errno != EINVAL)
        return 1;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (prctl(PR_SET_MDWE + 1, 0, 0, 0, 0) == PR_MDWE_REFUSE_EXEC_GAIN && page != MAP_FAILED)
        return 2;
    return serve();
}
