/* See lock.h. flock(2) cannot wait with a deadline: a thread waits for the lock, the caller for the
 * thread. When the caller gives up, the thread is left behind and lets the lock go if it gets it.
 */
#include "daemon/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

struct waiter {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int fd;
    int ended;     /* the thread has the lock or an error */
    int error;     /* errno, 0: has the lock */
    int abandoned; /* the caller has left; the thread frees */
};

static void destroy(struct waiter *waiter)
{
    pthread_mutex_destroy(&waiter->mutex);
    pthread_cond_destroy(&waiter->changed);
    free(waiter);
}

static void *wait_for_lock(void *arg)
{
    struct waiter *waiter = arg;
    int status, abandoned;

    do
        status = flock(waiter->fd, LOCK_EX);
    while (status != 0 && errno == EINTR);
    pthread_mutex_lock(&waiter->mutex);
    waiter->error = status != 0 ? errno : 0;
    waiter->ended = 1;
    abandoned = waiter->abandoned;
    pthread_cond_signal(&waiter->changed);
    pthread_mutex_unlock(&waiter->mutex);
    if (abandoned) {
        close(waiter->fd);
        destroy(waiter);
    }
    return NULL;
}

static struct waiter *create(int fd)
{
    struct waiter *waiter = calloc(1, sizeof *waiter);
    pthread_condattr_t attr;

    if (waiter == NULL)
        return NULL;
    waiter->fd = fd;
    pthread_mutex_init(&waiter->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&waiter->changed, &attr);
    pthread_condattr_destroy(&attr);
    return waiter;
}

/* 0: locked; ETIMEDOUT: not in time, the descriptor belongs to the thread now; another errno:
 * failed. */
static int lock_within(int fd, uint64_t wait_ms)
{
    struct waiter *waiter = create(fd);
    struct timespec until;
    pthread_t thread;
    int error;

    if (waiter == NULL)
        return ENOMEM;
    error = pthread_create(&thread, NULL, wait_for_lock, waiter);
    if (error != 0) {
        destroy(waiter);
        return error;
    }
    pthread_detach(thread);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(wait_ms / 1000);
    until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&waiter->mutex);
    while (!waiter->ended && error == 0)
        error = pthread_cond_timedwait(&waiter->changed, &waiter->mutex, &until);
    if (waiter->ended) {
        error = waiter->error;
        pthread_mutex_unlock(&waiter->mutex);
        destroy(waiter);
    } else {
        waiter->abandoned = 1;
        pthread_mutex_unlock(&waiter->mutex);
    }
    return error;
}

static void read_holder(const char *path, char *out, size_t size)
{
    FILE *file = fopen(path, "re");

    if (file == NULL || fgets(out, (int)size, file) == NULL)
        (void)snprintf(out, size, "unknown");
    out[strcspn(out, "\n")] = '\0';
    if (file != NULL)
        fclose(file);
}

static enum apd_code write_holder(int fd, const char *path, struct apd_err *err)
{
    char host[256] = "", text[300];
    int n;

    (void)gethostname(host, sizeof host - 1);
    n = snprintf(text, sizeof text, "pid %ld on %s\n", (long)getpid(), host);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return apd_fail_errno(err, "writing %s", path);
    return APD_OK;
}

enum apd_code apd_lock_take(const char *path, uint64_t wait_ms, int *out_fd, struct apd_err *err)
{
    char holder[300];
    enum apd_code rc;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), error = 0;

    if (fd < 0)
        return apd_fail_errno(err, "opening %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        error = errno == EWOULDBLOCK ? lock_within(fd, wait_ms) : errno;
    if (error == ETIMEDOUT) {
        read_holder(path, holder, sizeof holder);
        errno = EWOULDBLOCK;
        return apd_fail(err, APD_IO, "%s: another coordinator runs here (%s)", path, holder);
    }
    if (error != 0) {
        errno = error;
        rc = apd_fail_errno(err, "locking %s", path);
    } else {
        rc = write_holder(fd, path, err);
    }
    if (rc != APD_OK)
        close(fd);
    else
        *out_fd = fd;
    return rc;
}
