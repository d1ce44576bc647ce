/* Independent pieces of work over a few threads. */
#ifndef APD_WORKER_INDEX_PARALLEL_H
#define APD_WORKER_INDEX_PARALLEL_H

#include "base/err.h"

#include <stdatomic.h>
#include <stddef.h>

struct apd_parallel {
    size_t count;
    unsigned threads; /* >= 1 */
    /* Piece `i`; several run at once. */
    enum apd_code (*body)(void *context, size_t i, struct apd_err *err);
    void *context;
    const atomic_int *stop;      /* may be NULL; nonzero: no new piece is begun */
    void (*tick)(void *context); /* may be NULL; on the calling thread, ten times a second */
    void *tick_context;
};

/* Returns when all pieces are done, or with the first error when those begun have ended;
 * APD_CANCELED if it was stopped. */
APD_MUST_USE enum apd_code apd_parallel_run(const struct apd_parallel *work, struct apd_err *err);

/* Cores this process may use. */
unsigned apd_parallel_cores(void);

#endif
