// One thread in a state that the argument names, as far as its stack goes.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef NEW
#define VALUE 2
#else
#define VALUE 1
#endif

volatile int state, done, counter;

__attribute__((noipa, aligned(16))) int answer(void) { return VALUE; }

// Calls down to a depth, so that its return addresses lie on the stack below.
__attribute__((noipa, aligned(16))) int deep(int depth) {
    int below = depth ? deep(depth - 1) : answer();
    // Volatile, so that the call above is a real one.
    counter = counter + VALUE;
    return below + counter;
}

// Runs until it is told to end, and calls nothing.
__attribute__((noipa, aligned(16))) void spin(void) {
    while (!done) {
        state = VALUE;
    }
    counter = counter + 1;
}

__attribute__((noipa)) static void wait_below_old_words(void) {
    // Never written: whatever calls left here before is still here.
    char room[16384];
    __asm__ volatile("" : : "r"(room) : "memory");
    for (;;) pause();
}

static void handler(int signal) {
    (void)signal;
    state = 100;
    while (!done) usleep(1000);
}

#ifndef ONE_STACK
static ucontext_t main_context, other_context;
static char other_stack[65536];

static void coroutine(void) {
    swapcontext(&other_context, &main_context);
}
#endif

static void *run(void *what) {
    pthread_setname_np(pthread_self(), what);
    if (!strcmp(what, "stale")) {
        deep(100);
        state = 100;
        wait_below_old_words();
    }
    if (!strcmp(what, "signal")) {
        stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
        sigaltstack(&stack, NULL);
        spin();
    }
    for (;;) pause();
    return NULL;
}

int main(int argc, char **argv) {
    char line[64];
    pthread_t t;
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    setvbuf(stdout, NULL, _IONBF, 0);
    sigaction(SIGUSR1, &action, NULL);
    if (argc < 2 || pthread_create(&t, NULL, run, argv[1])) return 3;
    if (!strcmp(argv[1], "signal")) {
        while (!state) usleep(1000);
        pthread_kill(t, SIGUSR1);
    }
    while (state < 100 && strcmp(argv[1], "plain")) usleep(1000);
#ifndef ONE_STACK
    if (argc > 2) {
        getcontext(&other_context);
        other_context.uc_stack.ss_sp = other_stack;
        other_context.uc_stack.ss_size = sizeof other_stack;
        makecontext(&other_context, coroutine, 0);
        swapcontext(&main_context, &other_context);
    }
#endif
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "done\n")) done = 1;
        printf("%d\n", answer());
    }
    return 0;
}
