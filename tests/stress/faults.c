/* Faults of the machine, put between a program and libc: the Nth operation that changes a file below some folders fails,
 * or the process is killed in the middle of it, or the wall clock jumps. Loaded with LD_PRELOAD; armed by `faults_arm`.
 * `flock` is another file system's where FAULTS_FLOCK says so, in all files or in those below FAULTS_FLOCK_BELOW: ENOLCK,
 * ENOSYS or EOPNOTSUPP (it fails), nobody (it says yes to all), or host:N (it holds between the processes of machine N, and as
 * on NFS it is a byte-range lock, which needs a file that is open for what is locked) or hosts (each worker of a launch is on
 * a machine of its own). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { COUNT, FAIL_ONCE, FAIL_FROM, KILL, CLOCK };

static _Atomic long operations;
static long nth;
static int mode = COUNT;
static long jump, shift;
static char roots[4][4096];
static int root_count, armed;

void faults_arm(int how, long number, long seconds, const char *folders) {
    mode = how, nth = number, jump = seconds, shift = 0, root_count = 0;
    atomic_store(&operations, 0);
    char copy[sizeof roots];
    snprintf(copy, sizeof copy, "%s", folders);
    for (char *place = strtok(copy, "\n"); place && root_count < 4; place = strtok(NULL, "\n"))
        snprintf(roots[root_count++], sizeof roots[0], "%s", place);
    armed = 1;
}

long faults_count(void) { return atomic_load(&operations); }

static int ours(const char *path) {
    if (!armed || !path) return 0;
    for (int i = 0; i < root_count; i++)
        if (!strncmp(path, roots[i], strlen(roots[i]))) return 1;
    return 0;
}

static int ours_open(int descriptor) {
    char link[64], path[4096];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return ours(path);
}

/* Count an operation; return 1 when it must fail, 2 when the process must die in it. */
static int due(void) {
    long number = atomic_fetch_add(&operations, 1) + 1;
    if (mode == CLOCK && number == nth) shift = jump;
    if (mode == KILL && number == nth) return 2;
    return (mode == FAIL_ONCE && number == nth) || (mode == FAIL_FROM && number >= nth);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define DIE() do { kill(getpid(), SIGKILL); for (;;) pause(); } while (0)
#define STRIKE(is_ours, error) do { \
    if (is_ours) { int what = due(); if (what == 2) DIE(); if (what == 1) { errno = error; return -1; } } } while (0)

/* A write that dies leaves half of its bytes behind. */
#define STRIKE_WRITE(half) do { \
    if (ours_open(fd)) { int what = due(); if (what == 2) { half; DIE(); } if (what == 1) { half; errno = ENOSPC; return -1; } } } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    STRIKE_WRITE(if (size > 1 && real(fd, data, size / 2)) {});
    return real(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    STRIKE_WRITE(if (size > 1 && real(fd, data, size / 2, at)) {});
    return real(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    STRIKE_WRITE(if (size > 1 && real(fd, data, size / 2, at)) {});
    return real(fd, data, size, at);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    STRIKE_WRITE(if (count > 1 && real(fd, parts, count / 2)) {});
    return real(fd, parts, count);
}
ssize_t sendfile(int fd, int from, off_t *at, size_t size);
ssize_t sendfile(int fd, int from, off_t *at, size_t size) {
    REAL(sendfile);
    STRIKE(ours_open(fd), ENOSPC);
    return real(fd, from, at, size);
}
ssize_t sendfile64(int fd, int from, off64_t *at, size_t size);
ssize_t sendfile64(int fd, int from, off64_t *at, size_t size) {
    REAL(sendfile64);
    STRIKE(ours_open(fd), ENOSPC);
    return real(fd, from, at, size);
}
ssize_t copy_file_range(int from, off64_t *at, int fd, off64_t *to, size_t size, unsigned flags) {
    REAL(copy_file_range);
    STRIKE(ours_open(fd), ENOSPC);
    return real(from, at, fd, to, size, flags);
}
int fsync(int fd) { REAL(fsync); STRIKE(ours_open(fd), EIO); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); STRIKE(ours_open(fd), EIO); return real(fd); }
int ftruncate(int fd, off_t size) { REAL(ftruncate); STRIKE(ours_open(fd), EIO); return real(fd, size); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); STRIKE(ours_open(fd), EIO); return real(fd, size); }
int rename(const char *from, const char *to) { REAL(rename); STRIKE(ours(to), EIO); return real(from, to); }
int renameat(int a, const char *from, int b, const char *to) { REAL(renameat); STRIKE(ours(to), EIO); return real(a, from, b, to); }
int link(const char *from, const char *to) { REAL(link); STRIKE(ours(to), EIO); return real(from, to); }
int mkdir(const char *path, mode_t rights) { REAL(mkdir); STRIKE(ours(path), ENOSPC); return real(path, rights); }
/* What removes is counted, for processes die there too, but a full disk lets it pass. */
int unlink(const char *path) {
    REAL(unlink);
    if (ours(path) && due() == 2) DIE();
    return real(path);
}
int rmdir(const char *path) {
    REAL(rmdir);
    if (ours(path) && due() == 2) DIE();
    return real(path);
}
int unlinkat(int fd, const char *path, int flags) {
    REAL(unlinkat);
    if ((ours(path) || ours_open(fd)) && due() == 2) DIE();
    return real(fd, path, flags);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; va_start(rest, flags); mode_t rights = va_arg(rest, int); va_end(rest); \
        STRIKE((flags & (O_CREAT | O_TRUNC)) && ours(path), ENOSPC); \
        return real(path, flags, rights); \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
    int name(int fd, const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; va_start(rest, flags); mode_t rights = va_arg(rest, int); va_end(rest); \
        STRIKE((flags & (O_CREAT | O_TRUNC)) && ours(path), ENOSPC); \
        return real(fd, path, flags, rights); \
    }
OPENAT(openat)
OPENAT(openat64)

static int below(int descriptor, const char *folder) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return !strncmp(path, folder, strlen(folder));
}

int flock(int fd, int operation) {
    REAL(flock);
    const char *what = getenv("FAULTS_FLOCK"), *folder = getenv("FAULTS_FLOCK_BELOW");
    if (!what || (folder && !below(fd, folder))) return real(fd, operation);
    if (!strcmp(what, "nobody")) return 0;
    if (!strncmp(what, "host", 4)) {
        const char *worker = getenv("PRETEXT_BENCH_WORKER");
        long host = what[4] == ':' ? atol(what + 5) : worker ? 1 + atol(worker) : 0;
        int kind = operation & LOCK_UN ? F_UNLCK : operation & LOCK_EX ? F_WRLCK : F_RDLCK;
        struct flock range = {.l_type = kind, .l_whence = SEEK_SET, .l_start = (1L << 40) + host, .l_len = 1};
        return fcntl(fd, operation & LOCK_NB ? F_OFD_SETLK : F_OFD_SETLKW, &range);
    }
    errno = !strcmp(what, "ENOLCK") ? ENOLCK : !strcmp(what, "ENOSYS") ? ENOSYS : EOPNOTSUPP;
    return -1;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int found = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += shift;
    return found;
}
time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}
