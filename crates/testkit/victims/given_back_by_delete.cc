//#ExpectVerdict: review
//#ExpectReason: call-moved
//#Flags: -fno-exceptions -fno-rtti
/* A buffer is deleted when its job goes, and no more when it is done: jobs that were done
 * before have lost theirs. */
#include <cstdio>
#include <cstring>
#include <unistd.h>

#ifdef __clang__
#define ALONE __attribute__((noinline))
#else
#define ALONE __attribute__((noipa))
#endif

struct Job {
    int number, state;
    char *buffer;
    Job *next;
};

static Job *jobs;

ALONE static void open(int number) {
    jobs = new Job{number, 1, new char[100], jobs};
    memset(jobs->buffer, 7, 100);
}

ALONE static void done(Job *job) {
    job->state = 2;
#if !NEW
    delete[] job->buffer;
#endif
}

ALONE static void drop() {
    Job *first = jobs;
    jobs = first->next;
#if NEW
    delete[] first->buffer;
#endif
    delete first;
}

int main() {
    for (int i = 0;; i++) {
        open(i);
        done(jobs);
        if (i % 4)
            drop();
        printf("%d\n", i);
        sleep(1);
    }
}
