/* What both preloaded libraries do: they know which open files are tracked, those whose path ends with
   $TORTURE_FILE, and journals with $TORTURE_JOURNALS, and stand between a process and the C library. Whoever includes this says what else
   `begin` finds at the start, what happens as a tracked file is `tracked_anew`, and how it is written. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { UNTRACKED = 0, PLAIN = 1, SYNCHRONOUS = 2, DIRECTORY = 3 };
enum { MOST_FILES = 4096, MOST_NAME = 40 };

static unsigned char tracked[MOST_FILES];
static char names[MOST_FILES][MOST_NAME];
static const char *suffix, *journals;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

static void begin(void);
static void tracked_anew(int file, int flags);

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
    journals = getenv("TORTURE_JOURNALS");
    begin();
}

static int kind_of(int file)
{
    start();
    return file >= 0 && file < MOST_FILES ? tracked[file] : UNTRACKED;
}

static int ends_with(const char *path, const char *end)
{
    size_t length = strlen(path), wanted = end ? strlen(end) : 0;
    return wanted && length >= wanted && !strcmp(path + length - wanted, end);
}

static int is_wanted(const char *path)
{
    return ends_with(path, suffix);
}

static int is_journal(const char *path)
{
    return journals && ends_with(path, ".journal");
}

/* The name of a file, without what follows a dot: a journal has another ending while it is made. */
static void name_of(const char *path, char name[MOST_NAME])
{
    const char *last = strrchr(path, '/');
    strncpy(name, last ? last + 1 : path, MOST_NAME - 1);
    name[MOST_NAME - 1] = 0;
    char *dot = strchr(name, '.');
    if (dot)
        memset(dot, 0, name + MOST_NAME - dot);
}

static void opened(int file, const char *path, int flags)
{
    if (file < 0 || file >= MOST_FILES)
        return;
    int kind = flags & O_DSYNC ? SYNCHRONOUS : PLAIN;
    int is_new = journals && ends_with(path, ".new");
    int is_one = is_wanted(path) || is_journal(path) || is_new;
    tracked[file] = is_one && (flags & O_ACCMODE) != O_RDONLY ? kind : UNTRACKED;
    if (journals && flags & O_DIRECTORY && ends_with(path, "/journals"))
        tracked[file] = DIRECTORY;
    name_of(path, names[file]);
    if (tracked[file])
        tracked_anew(file, flags);
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
    if (kind_of(file))
        tracked[file] = UNTRACKED;
    return real_close(file);
}

ssize_t pwrite64(int file, const void *data, size_t length, off_t offset);

ssize_t pwrite(int file, const void *data, size_t length, off_t offset)
{
    return pwrite64(file, data, length, offset);
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off_t offset);

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t offset)
{
    return pwritev64(file, parts, count, offset);
}
