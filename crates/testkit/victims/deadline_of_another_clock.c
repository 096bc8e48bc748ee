//#ExpectVerdict: review
//#ExpectReason: shared-state
/* Deadlines become those of another clock, in the function that sets them and in the one that
 * looks at them: the ones that are kept mean the old clock. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct session {
    int number;
    time_t until;
    struct session *next;
};

static struct session *sessions;

__attribute__((noinline, noclone)) static void log_in(int number) {
    struct session *made = malloc(sizeof *made);
    made->number = number;
#if NEW
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    made->until = now.tv_sec + 300;
#else
    made->until = time(NULL) + 300;
#endif
    made->next = sessions;
    sessions = made;
}

__attribute__((noinline, noclone)) static int is_over(const struct session *session) {
#if NEW
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > session->until;
#else
    return time(NULL) > session->until;
#endif
}

int main(void) {
    for (int i = 0;; i++) {
        log_in(i);
        printf("%d\n", is_over(sessions));
        sleep(1);
    }
}
