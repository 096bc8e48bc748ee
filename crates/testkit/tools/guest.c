/* The only program of a guest: its first process.
 *
 * It loads the modules in /modules, in the order of their names, and then
 * forever: watches the clock, writes a block to the disk and reads it back, and
 * prints one line on the console,
 *
 *     beat NUMBER GAP_US IO_US WRONG
 *
 * where GAP is the longest time by which the clock jumped while nothing but it
 * was looked at, or by which a sleep was longer than asked for; IO is how long
 * writing and reading back took; WRONG is 1 if what was read is not what was
 * written, or if the clock went backwards.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, BLOCKS = 1024, WATCH_US = 2000, SLEEP_US = 8000 };

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
}

static void fail(const char *what)
{
    printf("guest: %s failed\n", what);
    fflush(stdout);
    for (;;)
        pause();
}

static void load_modules(void)
{
    struct dirent **names;
    int count = scandir("/modules", &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[512];
        if (names[i]->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0)
            printf("guest: %s is not loaded\n", path);
        close(fd);
    }
}

static int open_disk(void)
{
    for (int tries = 0; tries < 500; tries++) {
        int fd = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
        if (fd >= 0)
            return fd;
        usleep(20000);
    }
    fail("opening the disk");
    return -1;
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    mkdir("/dev", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    load_modules();
    int disk = open_disk();
    uint64_t *block, *back;
    if (posix_memalign((void **)&block, BLOCK, BLOCK) || posix_memalign((void **)&back, BLOCK, BLOCK))
        fail("memory");
    for (uint64_t number = 1;; number++) {
        int64_t gap = 0, wrong = 0, begin = now_us(), last = begin;
        while (last - begin < WATCH_US) {
            int64_t next = now_us();
            if (next < last)
                wrong = 1;
            if (next - last > gap)
                gap = next - last;
            last = next;
        }
        usleep(SLEEP_US);
        int64_t io = now_us();
        if (io - last - SLEEP_US > gap)
            gap = io - last - SLEEP_US;
        for (size_t i = 0; i < BLOCK / sizeof *block; i++)
            block[i] = number * UINT64_C(0x9e3779b97f4a7c15) + i;
        memset(back, 0, BLOCK);
        off_t at = (off_t)(number % BLOCKS) * BLOCK;
        if (pwrite(disk, block, BLOCK, at) != BLOCK || pread(disk, back, BLOCK, at) != BLOCK)
            fail("disk I/O");
        if (memcmp(block, back, BLOCK) != 0)
            wrong = 1;
        io = now_us() - io;
        printf("beat %llu %lld %lld %lld\n", (unsigned long long)number, (long long)gap, (long long)io,
               (long long)wrong);
    }
}
