/* Preloaded into a process, writes down in order what it does to one SQLite database and to one other file, the witness: each write with its
 * data, each truncation, each sync, each removal. A power cut is then any prefix of that, where what no sync has confirmed may be
 * missing in part. One lock is held over each call and its record, so that the order of the records is that of the calls. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(&real_##name, #name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int record_file = -1;
static void *real_write, *real_pwrite64, *real_ftruncate64, *real_fsync, *real_fdatasync, *real_unlink;

static void *real(void **known, const char *name) {
    if (*known == NULL) *known = dlsym(RTLD_NEXT, name);
    return *known;
}

/* 'd' for the database, 'l' for its log, 'w' for the witness, 0 for anything else. */
static char which(const char *path) {
    const char *database = getenv("RECORD_DATABASE"), *witness = getenv("RECORD_WITNESS");
    if (database == NULL || witness == NULL) return 0;
    size_t length = strlen(database);
    if (strcmp(path, witness) == 0) return 'w';
    if (strncmp(path, database, length) != 0) return 0;
    if (path[length] == 0) return 'd';
    return strcmp(path + length, "-wal") == 0 ? 'l' : 0;
}

static char which_open(int file) {
    char link[64] = "/proc/self/fd/", path[PATH_MAX];
    char digits[16], *end = digits + sizeof digits;
    if (file <= 2) return 0;
    *--end = 0;
    for (int rest = file; rest > 0; rest /= 10) *--end = '0' + rest % 10;
    strcat(link, end);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return which(path);
}

static void put(char act, char file, int64_t offset, int64_t length, const void *data, size_t size) {
    struct __attribute__((packed)) { char act, file; int64_t offset, length; } head = {act, file, offset, length};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, size}};
    if (record_file < 0) record_file = open(getenv("RECORD_TO"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (writev(record_file, parts, 2) != (ssize_t)(sizeof head + size)) abort();
}

ssize_t write(int file, const void *data, size_t size) {
    char what = which_open(file);
    if (!what) return REAL(write)(file, data, size);
    pthread_mutex_lock(&lock);
    off64_t offset = lseek64(file, 0, SEEK_CUR);
    ssize_t done = REAL(write)(file, data, size);
    if (done > 0) put('w', what, offset, done, data, done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset) {
    char what = which_open(file);
    if (!what) return REAL(pwrite64)(file, data, size, offset);
    pthread_mutex_lock(&lock);
    ssize_t done = REAL(pwrite64)(file, data, size, offset);
    if (done > 0) put('w', what, offset, done, data, done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int file, const void *data, size_t size, off_t offset) { return pwrite64(file, data, size, offset); }

int ftruncate64(int file, off64_t size) {
    char what = which_open(file);
    if (!what) return REAL(ftruncate64)(file, size);
    pthread_mutex_lock(&lock);
    int done = REAL(ftruncate64)(file, size);
    if (done == 0) put('t', what, 0, size, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

static int synced(int done, char what) {
    if (done == 0 && what) {
        pthread_mutex_lock(&lock);
        put('s', what, 0, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return done;
}

/* A write by another thread between the sync and its record would count as synced: none happens, one thread writes a database. */
int fsync(int file) { return synced(REAL(fsync)(file), which_open(file)); }

int fdatasync(int file) { return synced(REAL(fdatasync)(file), which_open(file)); }

int unlink(const char *path) {
    char what = which(path);
    if (!what) return REAL(unlink)(path);
    pthread_mutex_lock(&lock);
    int done = REAL(unlink)(path);
    if (done == 0) put('u', what, 0, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}
