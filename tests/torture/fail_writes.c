/* Preloaded into a process: makes writes and flushes of the files fail whose path ends with
   $TORTURE_FILE, as the control block in the file $TORTURE_FAULTS says, which another process may
   change at any time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { DATA = 1, META = 2, FLUSH = 4 };
enum { UNTRACKED = 0, PLAIN = 1, SYNCHRONOUS = 2 };
enum { MOST_FILES = 4096 };

struct control {
    int64_t operations; /* which ones count: a sum of DATA, META, FLUSH */
    int64_t passes;     /* how many of those go through before the first that fails */
    int64_t failures;   /* how many fail then */
    int64_t error;      /* the errno of a failure; 0 writes only half, and ENOSPC for a flush */
    int64_t failed;     /* how many have failed */
    int64_t flushed;    /* how many flushes have succeeded since the last failure */
    int64_t sealed;     /* how many META writes have */
};

static unsigned char tracked[MOST_FILES];
static const char *suffix;
static struct control *control;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void start(void)
{
    if (real_write)
        return;
    real_open = dlsym(RTLD_NEXT, "open64");
    real_openat = dlsym(RTLD_NEXT, "openat64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_pwritev = dlsym(RTLD_NEXT, "pwritev64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_write = dlsym(RTLD_NEXT, "write");
    suffix = getenv("TORTURE_FILE");
    const char *path = getenv("TORTURE_FAULTS");
    int file = path && suffix ? real_open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED)
        control = shared;
    real_close(file);
}

static void opened(int file, const char *path, int flags)
{
    if (file < 0 || file >= MOST_FILES || !suffix)
        return;
    size_t length = strlen(path), wanted = strlen(suffix);
    int matches = length >= wanted && !strcmp(path + length - wanted, suffix);
    int kind = flags & O_DSYNC ? SYNCHRONOUS : PLAIN;
    tracked[file] = matches && (flags & O_ACCMODE) != O_RDONLY ? kind : UNTRACKED;
}

/* Whether an operation fails now; counts it. */
static int fails(int file, int flush)
{
    start();
    if (!control || file < 0 || file >= MOST_FILES || !tracked[file])
        return 0;
    int operation = flush ? FLUSH : tracked[file] == SYNCHRONOUS ? META : DATA;
    int counts = (control->operations & operation) && control->failures > 0;
    if (counts && control->passes == 0) {
        control->failures--;
        control->failed++;
        control->flushed = control->sealed = 0;
        return 1;
    }
    control->passes -= counts;
    control->flushed += operation == FLUSH;
    control->sealed += operation == META;
    return 0;
}

#define MODE_OF(flags) \
    int mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, int); \
        va_end(rest); \
    }

int open64(const char *path, int flags, ...)
{
    MODE_OF(flags)
    start();
    int file = real_open(path, flags, mode);
    opened(file, path, flags);
    return file;
}

int open(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open64(path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...)
{
    MODE_OF(flags)
    start();
    int file = real_openat(folder, path, flags, mode);
    opened(file, path, flags);
    return file;
}

int openat(int folder, const char *path, int flags, ...)
{
    MODE_OF(flags)
    return openat64(folder, path, flags, mode);
}

int close(int file)
{
    start();
    if (file >= 0 && file < MOST_FILES)
        tracked[file] = UNTRACKED;
    return real_close(file);
}

ssize_t pwrite64(int file, const void *data, size_t length, off_t offset)
{
    if (!fails(file, 0))
        return real_pwrite(file, data, length, offset);
    if (!control->error)
        return real_pwrite(file, data, length / 2, offset);
    errno = (int)control->error;
    return -1;
}

ssize_t pwrite(int file, const void *data, size_t length, off_t offset)
{
    return pwrite64(file, data, length, offset);
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off_t offset)
{
    if (!fails(file, 0))
        return real_pwritev(file, parts, count, offset);
    if (!control->error)
        return real_pwrite(file, parts[0].iov_base, parts[0].iov_len / 2, offset);
    errno = (int)control->error;
    return -1;
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t offset)
{
    return pwritev64(file, parts, count, offset);
}

ssize_t writev(int file, const struct iovec *parts, int count)
{
    if (!fails(file, 0))
        return real_writev(file, parts, count);
    if (!control->error)
        return real_write(file, parts[0].iov_base, parts[0].iov_len / 2);
    errno = (int)control->error;
    return -1;
}

ssize_t write(int file, const void *data, size_t length)
{
    if (!fails(file, 0))
        return real_write(file, data, length);
    if (!control->error)
        return real_write(file, data, length / 2);
    errno = (int)control->error;
    return -1;
}

static int flush_failed(void)
{
    errno = control->error ? (int)control->error : ENOSPC;
    return -1;
}

int fdatasync(int file)
{
    return fails(file, 1) ? flush_failed() : real_fdatasync(file);
}

int fsync(int file)
{
    return fails(file, 1) ? flush_failed() : real_fsync(file);
}
