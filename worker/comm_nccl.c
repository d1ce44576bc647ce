/* The operations of the NCCL communicator: what goes on which stream. Thread: step.
 *
 *   compute  ---- gradients ---- F ---- more work ---------- W ---- update
 *                                 \                         /
 *   ours                           ---- all-reduce ---- ... J
 *
 * An event F after what the sum needs, an event J after the last sum: the host waits for neither,
 * and both are captured when the backend captures its stream. */
#include "worker/comm_nccl.h"

#include "worker/comm_nccl_private.h"

#include <stdlib.h>

static struct comm_nccl *self_of(struct apd_comm *comm)
{
    return (struct comm_nccl *)comm;
}

/* What comes next on our stream comes after what is on the backend's. */
static enum apd_code fork_stream(struct comm_nccl *self, struct apd_err *err)
{
    CUDA_TRY(cudaEventRecord(self->forked, self->compute));
    CUDA_TRY(cudaStreamWaitEvent(self->stream, self->forked, 0));
    return APD_OK;
}

static enum apd_code join_stream(struct comm_nccl *self, struct apd_err *err)
{
    CUDA_TRY(cudaEventRecord(self->joined, self->stream));
    CUDA_TRY(cudaStreamWaitEvent(self->compute, self->joined, 0));
    self->sums = 0;
    return APD_OK;
}

static enum apd_code nccl_sum_start(struct apd_comm *comm, void *buf, size_t n,
                                    enum apd_sum_type type, struct apd_err *err)
{
    struct comm_nccl *self = self_of(comm);

    if (n == 0)
        return APD_OK;
    APD_TRY(fork_stream(self, err));
    self->sums++;
    NCCL_TRY(self, ncclAllReduce(buf, buf, n, type == APD_SUM_F32 ? ncclFloat32 : ncclFloat64,
                                 ncclSum, self->nccl, self->stream));
    return APD_OK;
}

static enum apd_code nccl_sum_wait(struct apd_comm *comm, struct apd_err *err)
{
    struct comm_nccl *self = self_of(comm);

    /* A stream that was not forked into a capture must not be joined into it. */
    return self->sums > 0 ? join_stream(self, err) : APD_OK;
}

static enum apd_code copy_own(struct comm_nccl *self, cudaStream_t stream, void *recv,
                              const void *send, size_t row_bytes, const int *send_rows,
                              const int *recv_rows, struct apd_err *err)
{
    int rank = self->base.rank, rows = send_rows[rank];

    if (rows != recv_rows[rank])
        return apd_fail(err, APD_BUG, "worker %d sends %d rows to itself and expects %d", rank,
                        rows, recv_rows[rank]);
    if (rows > 0)
        CUDA_TRY(cudaMemcpyAsync(recv, send, row_bytes * (size_t)rows, cudaMemcpyDeviceToDevice,
                                 stream));
    return APD_OK;
}

static enum apd_code post_rows(struct comm_nccl *self, size_t row_bytes, const char *send,
                               const int *send_rows, char *recv, const int *recv_rows,
                               struct apd_err *err)
{
    for (int w = 0; w < self->base.size; w++) {
        size_t out = row_bytes * (size_t)send_rows[w], in = row_bytes * (size_t)recv_rows[w];

        if (w == self->base.rank) {
            APD_TRY(copy_own(self, self->stream, recv, send, row_bytes, send_rows, recv_rows, err));
        } else {
            if (out > 0)
                NCCL_TRY(self, ncclSend(send, out, ncclInt8, w, self->nccl, self->stream));
            if (in > 0)
                NCCL_TRY(self, ncclRecv(recv, in, ncclInt8, w, self->nccl, self->stream));
        }
        send += out;
        recv += in;
    }
    return APD_OK;
}

/* Not ncclAlltoAll where our own counts are equal: those of others need not be, and they would call
 * something else. */
static enum apd_code nccl_exchange_rows(struct apd_comm *comm, size_t row_bytes, const void *send,
                                        const int *send_rows, void *recv, const int *recv_rows,
                                        struct apd_err *err)
{
    struct comm_nccl *self = self_of(comm);
    ncclResult_t ended;
    enum apd_code rc;

    APD_TRY(fork_stream(self, err));
    NCCL_TRY(self, ncclGroupStart());
    self->in_group = 1;
    rc = post_rows(self, row_bytes, send, send_rows, recv, recv_rows, err);
    self->in_group = 0;
    ended = ncclGroupEnd();
    APD_TRY(rc);
    APD_TRY(apd_nccl_check(self, ended, "ncclGroupEnd()", err));
    return join_stream(self, err);
}

static void nccl_abort(struct apd_comm *comm, int status)
{
    apd_nccl_kill(self_of(comm));
    _Exit(status);
}

static void nccl_destroy(struct apd_comm *comm)
{
    struct comm_nccl *self = self_of(comm);

    /* What NCCL still works on is left to the end of the process. */
    if (!apd_nccl_end(self))
        return;
    if (self->forked != NULL)
        cudaEventDestroy(self->forked);
    if (self->joined != NULL)
        cudaEventDestroy(self->joined);
    if (self->stream != NULL)
        cudaStreamDestroy(self->stream);
    free(self);
}

static const struct apd_comm_ops nccl_ops = {
    .sum_start = nccl_sum_start,
    .sum_wait = nccl_sum_wait,
    .exchange_rows = nccl_exchange_rows,
    .abort = nccl_abort,
    .destroy = nccl_destroy,
};

/* ---------------------------------------------------------------- one worker */

static enum apd_code alone_sum_start(struct apd_comm *comm, void *buf, size_t n,
                                     enum apd_sum_type type, struct apd_err *err)
{
    (void)comm, (void)buf, (void)n, (void)type, (void)err;
    return APD_OK;
}

static enum apd_code alone_sum_wait(struct apd_comm *comm, struct apd_err *err)
{
    (void)comm, (void)err;
    return APD_OK;
}

static enum apd_code alone_exchange_rows(struct apd_comm *comm, size_t row_bytes, const void *send,
                                         const int *send_rows, void *recv, const int *recv_rows,
                                         struct apd_err *err)
{
    struct comm_nccl *self = self_of(comm);

    return copy_own(self, self->compute, recv, send, row_bytes, send_rows, recv_rows, err);
}

static void alone_abort(struct apd_comm *comm, int status)
{
    (void)comm;
    _Exit(status);
}

static void alone_destroy(struct apd_comm *comm)
{
    free(comm);
}

static const struct apd_comm_ops alone_ops = {
    .sum_start = alone_sum_start,
    .sum_wait = alone_sum_wait,
    .exchange_rows = alone_exchange_rows,
    .abort = alone_abort,
    .destroy = alone_destroy,
};

void apd_nccl_versions(int *out_built, int *out_found)
{
    *out_built = NCCL_VERSION_CODE;
    if (ncclGetVersion(out_found) != ncclSuccess)
        *out_found = 0;
}

/* ---------------------------------------------------------------- start */

static enum apd_code on_wait(void *ctx, struct apd_err *err)
{
    return apd_nccl_poll(ctx, err);
}

enum apd_code apd_comm_nccl(struct apd_backend *be, struct apd_comm *host, int deterministic,
                            double timeout_s, struct apd_comm **out, struct apd_err *err)
{
    struct comm_nccl *self = calloc(1, sizeof *self);
    enum apd_code rc;

    if (self == NULL)
        return apd_fail(err, APD_NOMEM, "communicator");
    self->base.ops = host->size > 1 ? &nccl_ops : &alone_ops;
    self->base.rank = host->rank;
    self->base.size = host->size;
    self->compute = apd_cuda_stream(be);
    self->timeout_s = timeout_s;
    if (host->size > 1) {
        rc = apd_nccl_start(self, host, deterministic, err);
        if (rc != APD_OK) {
            nccl_destroy(&self->base);
            return rc;
        }
        apd_cuda_on_wait(be, on_wait, self);
    }
    *out = &self->base;
    return APD_OK;
}
