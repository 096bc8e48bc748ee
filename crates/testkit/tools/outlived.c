/* Its first thread has ended, and another one runs on: the kernel shows nothing of it. */
#include <pthread.h>
#include <unistd.h>

static void *rest(void *nothing) {
    for (;;)
        pause();
    return nothing;
}

int main(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, rest, NULL))
        return 1;
    pthread_exit(NULL);
}
