/* Collectives over MPI, summed in the tree order of worker/tree.h.
 *
 * W a power of two: reduce-scatter by distance doubling (neighbours first, so that partial sums are
 * subtrees), then all-gather back: 2 (W - 1) / W of the data per worker. Other W: sums walk up the
 * tree to worker 0, which broadcasts. Data goes in pieces that fit the L2 cache, which Open MPI
 * moves fastest. Open MPI does not progress in the background, so sum_start does the work and
 * sum_wait has none. */
#include "worker/comm_mpi.h"

#include "worker/tree.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 1 << 20, TAG_SUM = 1 };

struct comm_mpi {
    struct apd_comm base;
    MPI_Comm comm;
    void *incoming; /* PIECE_BYTES */
};

static enum apd_code check_mpi(int status, const char *call, struct apd_err *err)
{
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;

    if (status == MPI_SUCCESS)
        return APD_OK;
    MPI_Error_string(status, text, &n);
    (void)apd_fail(err, APD_PEER, "%s: %.*s", call, n, text);
    err->sys = status;
    return APD_PEER;
}

#define MPI_GO(call)  APD_GO(check_mpi((call), #call, err))
#define MPI_TRY(call) APD_TRY(check_mpi((call), #call, err))

static size_t type_bytes(enum apd_sum_type type)
{
    return type == APD_SUM_F32 ? sizeof(float) : sizeof(double);
}

static MPI_Datatype type_mpi(enum apd_sum_type type)
{
    return type == APD_SUM_F32 ? MPI_FLOAT : MPI_DOUBLE;
}

/* a + b is the same as b + a to the last bit, so it does not matter which side of the tree we are.
 */
static void add_into(void *dst, const void *src, size_t n, enum apd_sum_type type)
{
    if (type == APD_SUM_F32) {
        float *to = dst;
        const float *from = src;

        for (size_t i = 0; i < n; i++)
            to[i] += from[i];
    } else {
        double *to = dst;
        const double *from = src;

        for (size_t i = 0; i < n; i++)
            to[i] += from[i];
    }
}

static char *at(void *buf, size_t i, enum apd_sum_type type)
{
    return (char *)buf + i * type_bytes(type);
}

/* Distance doubling: after round k this worker holds the sum over its group of 2^(k+1) workers for
 * one part of the piece. The parts are [first, first + n) and are remembered for the way back. */
static enum apd_code sum_power_of_two(struct comm_mpi *self, void *buf, size_t n,
                                      enum apd_sum_type type, struct apd_err *err)
{
    size_t first[32], length[32];
    size_t my_first = 0, my_length = n;
    int rounds = 0;

    for (int distance = 1; distance < self->base.size; distance *= 2, rounds++) {
        int peer = self->base.rank ^ distance;
        size_t low = my_length / 2, high = my_length - low;
        int keep_low = self->base.rank < peer;
        size_t keep_first = keep_low ? my_first : my_first + low;
        size_t send_first = keep_low ? my_first + low : my_first;
        size_t keep = keep_low ? low : high, give = keep_low ? high : low;

        first[rounds] = my_first;
        length[rounds] = my_length;
        MPI_TRY(MPI_Sendrecv(at(buf, send_first, type), (int)give, type_mpi(type), peer, TAG_SUM,
                             self->incoming, (int)keep, type_mpi(type), peer, TAG_SUM, self->comm,
                             MPI_STATUS_IGNORE));
        add_into(at(buf, keep_first, type), self->incoming, keep, type);
        my_first = keep_first;
        my_length = keep;
    }
    for (int distance = self->base.size / 2; distance >= 1; distance /= 2) {
        int peer = self->base.rank ^ distance;
        size_t other_first, other;

        rounds--;
        other_first = my_first == first[rounds] ? my_first + my_length : first[rounds];
        other = length[rounds] - my_length;
        MPI_TRY(MPI_Sendrecv(at(buf, my_first, type), (int)my_length, type_mpi(type), peer, TAG_SUM,
                             at(buf, other_first, type), (int)other, type_mpi(type), peer, TAG_SUM,
                             self->comm, MPI_STATUS_IGNORE));
        my_first = first[rounds];
        my_length = length[rounds];
    }
    return APD_OK;
}

/* Sum over workers [first, first + size) into worker `first`. */
static enum apd_code sum_up(struct comm_mpi *self, int first, int size, void *buf, size_t n,
                            enum apd_sum_type type, struct apd_err *err)
{
    int half, right, rank = self->base.rank;

    if (size <= 1)
        return APD_OK;
    half = apd_tree_split(size);
    right = first + half;
    if (rank < right)
        APD_TRY(sum_up(self, first, half, buf, n, type, err));
    else
        APD_TRY(sum_up(self, right, size - half, buf, n, type, err));
    if (rank == right)
        MPI_TRY(MPI_Send(buf, (int)n, type_mpi(type), first, TAG_SUM, self->comm));
    if (rank == first) {
        MPI_TRY(MPI_Recv(self->incoming, (int)n, type_mpi(type), right, TAG_SUM, self->comm,
                         MPI_STATUS_IGNORE));
        add_into(buf, self->incoming, n, type);
    }
    return APD_OK;
}

static enum apd_code mpi_sum_start(struct apd_comm *comm, void *buf, size_t n,
                                   enum apd_sum_type type, struct apd_err *err)
{
    struct comm_mpi *self = (struct comm_mpi *)comm;
    int power_of_two = (comm->size & (comm->size - 1)) == 0;
    size_t piece = PIECE_BYTES / type_bytes(type);

    for (size_t done = 0; done < n; done += piece) {
        size_t count = n - done < piece ? n - done : piece;
        void *part = at(buf, done, type);

        if (power_of_two) {
            APD_TRY(sum_power_of_two(self, part, count, type, err));
        } else {
            APD_TRY(sum_up(self, 0, comm->size, part, count, type, err));
            MPI_TRY(MPI_Bcast(part, (int)count, type_mpi(type), 0, self->comm));
        }
    }
    return APD_OK;
}

static enum apd_code mpi_sum_wait(struct apd_comm *comm, struct apd_err *err)
{
    (void)comm, (void)err;
    return APD_OK;
}

static enum apd_code mpi_exchange_rows(struct apd_comm *comm, size_t row_bytes, const void *send,
                                       const int *send_rows, void *recv, const int *recv_rows,
                                       struct apd_err *err)
{
    struct comm_mpi *self = (struct comm_mpi *)comm;
    int *offsets = malloc(sizeof *offsets * 2 * (size_t)comm->size);
    int *send_at = offsets, *recv_at = offsets + comm->size;
    MPI_Datatype row = MPI_DATATYPE_NULL;
    enum apd_code rc;

    if (offsets == NULL || row_bytes > INT_MAX) {
        free(offsets);
        return apd_fail(err, APD_NOMEM, "exchange of rows of %zu bytes", row_bytes);
    }
    for (int w = 0, s = 0, r = 0; w < comm->size; w++) {
        send_at[w] = s;
        recv_at[w] = r;
        s += send_rows[w];
        r += recv_rows[w];
    }
    MPI_GO(MPI_Type_contiguous((int)row_bytes, MPI_BYTE, &row));
    MPI_GO(MPI_Type_commit(&row));
    MPI_GO(MPI_Alltoallv(send, send_rows, send_at, row, recv, recv_rows, recv_at, row, self->comm));
done:
    if (row != MPI_DATATYPE_NULL)
        MPI_Type_free(&row);
    free(offsets);
    return rc;
}

static void mpi_abort(struct apd_comm *comm, int status)
{
    (void)comm;
    MPI_Abort(MPI_COMM_WORLD, status);
}

static void mpi_destroy(struct apd_comm *comm)
{
    struct comm_mpi *self = (struct comm_mpi *)comm;

    MPI_Comm_free(&self->comm);
    free(self->incoming);
    free(self);
}

static const struct apd_comm_ops mpi_ops = {
    .sum_start = mpi_sum_start,
    .sum_wait = mpi_sum_wait,
    .exchange_rows = mpi_exchange_rows,
    .abort = mpi_abort,
    .destroy = mpi_destroy,
};

enum apd_code apd_comm_mpi(MPI_Comm workers, struct apd_comm **out, struct apd_err *err)
{
    struct comm_mpi *self = calloc(1, sizeof *self);

    if (self != NULL)
        self->incoming = malloc(PIECE_BYTES);
    if (self == NULL || self->incoming == NULL) {
        free(self);
        return apd_fail(err, APD_NOMEM, "communicator");
    }
    self->base.ops = &mpi_ops;
    self->base.bucket_bytes = 4 << 20;
    self->comm = workers;
    MPI_Comm_set_errhandler(workers, MPI_ERRORS_RETURN);
    MPI_Comm_rank(workers, &self->base.rank);
    MPI_Comm_size(workers, &self->base.size);
    *out = &self->base;
    return APD_OK;
}

void apd_mpi_library(char out[128])
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int size = 0;

    MPI_Get_library_version(text, &size);
    (void)snprintf(out, 128, "%.*s", (int)strcspn(text, ",\n"), text);
}
