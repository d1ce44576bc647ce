#include "tests/support/fault.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static int countdown, further, fault_code;
static const char *fired;

void fault_arm(int nth, int more, int code)
{
    countdown = nth;
    further = more;
    fault_code = code;
    fired = NULL;
}

const char *fault_fired(void)
{
    const char *name = fired;

    fault_arm(0, 0, 0);
    return name;
}

static int must_fail(const char *name)
{
    if (countdown > 1) {
        countdown--;
        return 0;
    }
    if (countdown == 0)
        return 0;
    if (fired == NULL)
        fired = name;
    countdown = further > 0;
    further--;
    errno = fault_code;
    return 1;
}

ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size)
{
    if (!must_fail("write"))
        return __real_write(fd, data, size);
    if (size > 1 && __real_write(fd, data, size / 2) < 0)
        perror("write of a half");
    errno = fault_code;
    return -1;
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    return must_fail("fsync") ? -1 : __real_fsync(fd);
}

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to)
{
    return must_fail("rename") ? -1 : __real_rename(from, to);
}

int __real_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size)
{
    return must_fail("truncate") ? -1 : __real_ftruncate(fd, size);
}
