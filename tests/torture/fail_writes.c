/* Preloaded into a process: makes writes and flushes of the files fail whose path ends with
   $TORTURE_FILE, as the control block in the file $TORTURE_FAULTS says, which another process may
   change at any time. */
#include "tracked_files.h"

#include <sys/mman.h>

enum { DATA = 1, META = 2, FLUSH = 4 };

struct control {
    int64_t operations; /* which ones count: a sum of DATA, META, FLUSH */
    int64_t passes;     /* how many of those go through before the first that fails */
    int64_t failures;   /* how many fail then */
    int64_t error;      /* the errno of a failure; 0 writes only half, and ENOSPC for a flush */
    int64_t failed;     /* how many have failed */
    int64_t flushed;    /* how many flushes have succeeded since the last failure */
    int64_t sealed;     /* how many META writes have */
};

static struct control *control;

static void begin(void)
{
    const char *path = getenv("TORTURE_FAULTS");
    int file = path && suffix ? real_open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED)
        control = shared;
    real_close(file);
}

static void tracked_anew(int file, int flags)
{
    (void)file;
    (void)flags;
}

/* Whether an operation fails now; counts it. */
static int fails(int file, int flush)
{
    int kind = kind_of(file);
    if (!control || !kind)
        return 0;
    int operation = flush ? FLUSH : kind == SYNCHRONOUS ? META : DATA;
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

ssize_t pwrite64(int file, const void *data, size_t length, off_t offset)
{
    if (!fails(file, 0))
        return real_pwrite(file, data, length, offset);
    if (!control->error)
        return real_pwrite(file, data, length / 2, offset);
    errno = (int)control->error;
    return -1;
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
