//#ExpectVerdict: safe
//#Exchange: 5 | 5 wrong 0 | 6 wrong 0
/* Threads are made and end all the while; each runs the changed function. */
#include "answers.h"
#include <pthread.h>

static volatile unsigned long wrong;

ALONE static int changed(int number) {
#if NEW
    return number + 1;
#else
    return number;
#endif
}

static void *once(void *number) {
    int got = changed((int)(long)number);
    if (got != (int)(long)number && got != (int)(long)number + 1)
        wrong++;
    return NULL;
}

static void *storm(void *unused) {
    for (long number = 0;; number++) {
        pthread_t thread[4];
        int made = 0;
        for (; made < 4; made++)
            if (pthread_create(&thread[made], NULL, once, (void *)number))
                break;
        while (made > 0)
            pthread_join(thread[--made], NULL);
    }
    return unused;
}

static void answer(const char *asked) {
    printf("%d wrong %lu\n", changed(atoi(asked)), wrong);
}

int main(void) {
    pthread_t thread;
    for (int i = 0; i < 2; i++)
        if (pthread_create(&thread, NULL, storm, NULL))
            return 1;
    return serve();
}
