#include "worker/index/parallel.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TICK_MS = 100 };

struct crew {
    const struct apd_parallel *work;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    size_t next;      /* piece */
    unsigned running; /* threads */
    enum apd_code rc;
    struct apd_err err; /* of the first failure */
};

unsigned apd_parallel_cores(void)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

static int stopped(const struct apd_parallel *work)
{
    return work->stop != NULL && atomic_load(work->stop) != 0;
}

/* The next piece, or 0 if there is none for anybody. */
static int take(struct crew *crew, size_t *out)
{
    int more;

    pthread_mutex_lock(&crew->lock);
    if (crew->rc == APD_OK && crew->next < crew->work->count && stopped(crew->work))
        crew->rc = apd_fail(&crew->err, APD_CANCELED, "stopped by a signal");
    more = crew->rc == APD_OK && crew->next < crew->work->count;
    if (more)
        *out = crew->next++;
    pthread_mutex_unlock(&crew->lock);
    return more;
}

static void *run(void *arg)
{
    struct crew *crew = arg;
    struct apd_err err = {0};
    size_t i;

    while (take(crew, &i)) {
        enum apd_code rc = crew->work->body(crew->work->context, i, &err);

        if (rc == APD_OK)
            continue;
        pthread_mutex_lock(&crew->lock);
        if (crew->rc == APD_OK) {
            crew->rc = rc;
            crew->err = err;
        }
        pthread_mutex_unlock(&crew->lock);
    }
    pthread_mutex_lock(&crew->lock);
    crew->running--;
    pthread_cond_signal(&crew->ended);
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

static void wait_for_end(struct crew *crew)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    pthread_mutex_lock(&crew->lock);
    while (crew->running > 0) {
        until.tv_nsec += TICK_MS * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        while (crew->running > 0 &&
               pthread_cond_timedwait(&crew->ended, &crew->lock, &until) != ETIMEDOUT)
            ;
        if (crew->work->tick == NULL)
            continue;
        pthread_mutex_unlock(&crew->lock);
        crew->work->tick(crew->work->tick_context);
        pthread_mutex_lock(&crew->lock);
    }
    pthread_mutex_unlock(&crew->lock);
}

static void start_threads(struct crew *crew, pthread_t *thread, unsigned wanted, unsigned *out)
{
    unsigned n = 0;

    while (n < wanted) {
        int code;

        pthread_mutex_lock(&crew->lock);
        crew->running++;
        pthread_mutex_unlock(&crew->lock);
        code = pthread_create(&thread[n], NULL, run, crew);
        if (code == 0) {
            n++;
            continue;
        }
        pthread_mutex_lock(&crew->lock);
        crew->running--;
        errno = code;
        if (crew->rc == APD_OK)
            crew->rc = apd_fail_errno(&crew->err, "starting thread %u", n + 1);
        pthread_mutex_unlock(&crew->lock);
        break;
    }
    *out = n;
}

enum apd_code apd_parallel_run(const struct apd_parallel *work, struct apd_err *err)
{
    struct crew crew = {.work = work, .lock = PTHREAD_MUTEX_INITIALIZER};
    unsigned wanted = work->count < work->threads ? (unsigned)work->count : work->threads, n;
    pthread_t *thread = calloc((size_t)wanted + 1, sizeof *thread);
    pthread_condattr_t clock;

    if (thread == NULL)
        return apd_fail(err, APD_NOMEM, "%u threads", wanted);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&crew.ended, &clock);
    pthread_condattr_destroy(&clock);
    start_threads(&crew, thread, wanted, &n);
    wait_for_end(&crew);
    for (unsigned i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    pthread_cond_destroy(&crew.ended);
    pthread_mutex_destroy(&crew.lock);
    free(thread);
    if (crew.rc != APD_OK)
        *err = crew.err;
    return crew.rc;
}
