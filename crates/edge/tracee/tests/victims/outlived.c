// A program whose first thread ends while another runs on and answers.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void *answers(void *nothing) {
    char line[64];
    puts("ready");
    while (fgets(line, sizeof line, stdin)) puts("1");
    exit(0);
    return nothing;
}

int main(void) {
    pthread_t t;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (pthread_create(&t, NULL, answers, NULL)) return 3;
    pthread_exit(NULL);
}
