/* Preloaded into a process: logs what it does to the files whose path ends with $TORTURE_FILE, and to journals.

   Each entry of the log ($TORTURE_LOG, appended to by several processes) is a head and its data.
   A write is logged before it is done, a flush and the end of a synchronous write after: so that a
   power cut between two entries finds on the disk what the entries before it allow, and no more. */
#include "tracked_files.h"

enum { WRITE = 1, SYNC_WRITE = 2, SYNC_WRITE_DONE = 3, FLUSH = 4, TRUNCATE = 5, ALLOCATE = 6, NOTE = 7, NAMED = 8, REMOVED = 9, DIRECTORY_FLUSH = 10 };

struct head {
    uint32_t kind, pid;
    uint64_t offset, length;
    char name[MOST_NAME]; /* of the file */
};

static int log_file = -1;

static int (*real_rename)(const char *, const char *);
static int (*real_link)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_ftruncate)(int, off_t);
static int (*real_fallocate)(int, int, off_t, off_t);
static int (*real_posix_fallocate)(int, off_t, off_t);

static void begin(void)
{
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_link = dlsym(RTLD_NEXT, "link");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fallocate = dlsym(RTLD_NEXT, "fallocate64");
    real_posix_fallocate = dlsym(RTLD_NEXT, "posix_fallocate64");
    const char *path = getenv("TORTURE_LOG");
    if (path && suffix)
        log_file = real_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void record(const char *name, uint32_t kind, uint64_t offset, const void *data, uint64_t length)
{
    int before = errno;
    struct head head = {kind, (uint32_t)getpid(), offset, length, {0}};
    memcpy(head.name, name, MOST_NAME);
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, data ? length : 0}};
    if (log_file >= 0 && real_writev(log_file, parts, 2) < 0)
        abort(); /* a log with a hole would prove nothing */
    errno = before;
}

static void tracked_anew(int file, int flags)
{
    if (flags & O_TRUNC)
        record(names[file], TRUNCATE, 0, NULL, 0);
}

static void before_write(int file, const struct iovec *parts, int count, uint64_t offset)
{
    int kind = kind_of(file) == SYNCHRONOUS ? SYNC_WRITE : WRITE;
    for (int part = 0; part < count; part++) {
        if (parts[part].iov_len)
            record(names[file], kind, offset, parts[part].iov_base, parts[part].iov_len);
        offset += parts[part].iov_len;
    }
}

static void after_write(int file)
{
    if (kind_of(file) == SYNCHRONOUS)
        record(names[file], SYNC_WRITE_DONE, 0, NULL, 0);
}

ssize_t pwrite64(int file, const void *data, size_t length, off_t offset)
{
    if (!kind_of(file))
        return real_pwrite(file, data, length, offset);
    struct iovec part = {(void *)data, length};
    before_write(file, &part, 1, offset);
    ssize_t done = real_pwrite(file, data, length, offset);
    after_write(file);
    return done;
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off_t offset)
{
    if (!kind_of(file))
        return real_pwritev(file, parts, count, offset);
    before_write(file, parts, count, offset);
    ssize_t done = real_pwritev(file, parts, count, offset);
    after_write(file);
    return done;
}

ssize_t writev(int file, const struct iovec *parts, int count)
{
    if (!kind_of(file))
        return real_writev(file, parts, count);
    before_write(file, parts, count, lseek(file, 0, SEEK_CUR));
    ssize_t done = real_writev(file, parts, count);
    after_write(file);
    return done;
}

ssize_t write(int file, const void *data, size_t length)
{
    if (!kind_of(file))
        return real_write(file, data, length);
    struct iovec part = {(void *)data, length};
    before_write(file, &part, 1, lseek(file, 0, SEEK_CUR));
    ssize_t done = real_write(file, data, length);
    after_write(file);
    return done;
}

static int flushed(int file, int failed)
{
    if (!failed && kind_of(file))
        record(names[file], kind_of(file) == DIRECTORY ? DIRECTORY_FLUSH : FLUSH, 0, NULL, 0);
    return failed;
}

int fdatasync(int file)
{
    start();
    return flushed(file, real_fdatasync(file));
}

int fsync(int file)
{
    start();
    return flushed(file, real_fsync(file));
}

int ftruncate64(int file, off_t length)
{
    if (kind_of(file))
        record(names[file], TRUNCATE, length, NULL, 0);
    return real_ftruncate(file, length);
}

int ftruncate(int file, off_t length)
{
    return ftruncate64(file, length);
}

int fallocate64(int file, int mode, off_t offset, off_t length)
{
    if (kind_of(file) && !mode)
        record(names[file], ALLOCATE, offset + length, NULL, 0);
    return real_fallocate(file, mode, offset, length);
}

int fallocate(int file, int mode, off_t offset, off_t length)
{
    return fallocate64(file, mode, offset, length);
}

int posix_fallocate64(int file, off_t offset, off_t length)
{
    if (kind_of(file))
        record(names[file], ALLOCATE, offset + length, NULL, 0);
    return real_posix_fallocate(file, offset, length);
}

int posix_fallocate(int file, off_t offset, off_t length)
{
    return posix_fallocate64(file, offset, length);
}

static int named(int failed, const char *path)
{
    char name[MOST_NAME], part[1 << 16];
    name_of(path, name);
    if (!failed && is_journal(path))
        record(name, NAMED, 0, NULL, 0);
    if (failed || !is_wanted(path))
        return failed;
    int file = real_open(path, O_RDONLY | O_CLOEXEC);
    uint64_t offset = 0;
    ssize_t length;
    record(name, TRUNCATE, 0, NULL, 0);
    while (file >= 0 && (length = read(file, part, sizeof part)) > 0) {
        record(name, WRITE, offset, part, length);
        offset += length;
    }
    record(name, FLUSH, 0, NULL, 0);
    record(name, NAMED, 0, NULL, 0);
    if (file >= 0)
        real_close(file);
    return 0;
}

int rename(const char *from, const char *to)
{
    start();
    return named(real_rename(from, to), to);
}

int unlink(const char *path)
{
    start();
    int failed = real_unlink(path);
    char name[MOST_NAME];
    name_of(path, name);
    if (!failed && is_journal(path))
        record(name, REMOVED, 0, NULL, 0);
    return failed;
}

int link(const char *from, const char *to)
{
    start();
    return named(real_link(from, to), to);
}
