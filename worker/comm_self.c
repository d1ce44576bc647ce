/* Collectives of a single worker, and what all implementations share. */
#include "worker/comm.h"

#include <stdlib.h>
#include <string.h>

static enum apd_code self_sum_start(struct apd_comm *comm, void *buf, size_t n,
                                    enum apd_sum_type type, struct apd_err *err)
{
    (void)comm, (void)buf, (void)n, (void)type, (void)err;
    return APD_OK;
}

static enum apd_code self_sum_wait(struct apd_comm *comm, struct apd_err *err)
{
    (void)comm, (void)err;
    return APD_OK;
}

static enum apd_code self_exchange_rows(struct apd_comm *comm, size_t row_bytes, const void *send,
                                        const int *send_rows, void *recv, const int *recv_rows,
                                        struct apd_err *err)
{
    (void)comm;
    if (send_rows[0] != recv_rows[0])
        return apd_fail(err, APD_BUG, "one worker sends %d rows to itself and expects %d",
                        send_rows[0], recv_rows[0]);
    memcpy(recv, send, row_bytes * (size_t)send_rows[0]);
    return APD_OK;
}

static void self_abort(struct apd_comm *comm, int status)
{
    (void)comm;
    _Exit(status);
}

static void self_destroy(struct apd_comm *comm)
{
    free(comm);
}

static const struct apd_comm_ops self_ops = {
    .sum_start = self_sum_start,
    .sum_wait = self_sum_wait,
    .exchange_rows = self_exchange_rows,
    .abort = self_abort,
    .destroy = self_destroy,
};

enum apd_code apd_comm_self(struct apd_comm **out, struct apd_err *err)
{
    struct apd_comm *comm = calloc(1, sizeof *comm);

    if (comm == NULL)
        return apd_fail(err, APD_NOMEM, "communicator");
    comm->ops = &self_ops;
    comm->size = 1;
    comm->bucket_bytes = 4 << 20;
    *out = comm;
    return APD_OK;
}

enum apd_code apd_comm_sum(struct apd_comm *comm, void *buf, size_t n, enum apd_sum_type type,
                           struct apd_err *err)
{
    APD_TRY(comm->ops->sum_start(comm, buf, n, type, err));
    return comm->ops->sum_wait(comm, err);
}
