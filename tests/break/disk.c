/* Lets each n-th read of a database or its log fail with EIO, where n stands in the file DISK_FAULT just then; none while it is 0. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static volatile long *every(void) {
    static volatile long *found;
    static long none;
    if (found) return found;
    const char *name = getenv("DISK_FAULT");
    int file = name ? (int)syscall(SYS_open, name, O_RDONLY) : -1;
    void *map = file < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    return found = map == MAP_FAILED ? &none : map;
}

static int fails(int file) {
    static long reads;
    char link[64], path[4096];
    long n = *every();
    if (!n) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    const char *end = strstr(path, ".db");
    if (!end || (end[3] && strcmp(end, ".db-wal"))) return 0;
    if (__sync_add_and_fetch(&reads, 1) % n) return 0;
    errno = EIO;
    return 1;
}

ssize_t pread64(int file, void *into, size_t bytes, off64_t at) {
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "pread64");
    return fails(file) ? -1 : real(file, into, bytes, at);
}

ssize_t pread(int file, void *into, size_t bytes, off_t at) {
    return pread64(file, into, bytes, at);
}

ssize_t read(int file, void *into, size_t bytes) {
    return fails(file) ? -1 : syscall(SYS_read, file, into, bytes);
}
