/* Collectives among the workers of a run: one table, implemented by self (one worker), MPI and
 * NCCL.
 *
 * A communicator works on one kind of memory. Those of self and MPI work on the host's, which is
 * also the cpu and ref backends' device memory. NCCL's works on a GPU's: its calls are put behind
 * what the backend was told to do before, and what the backend is told after sum_wait() or
 * exchange_rows() comes behind them; the host does not wait.
 *
 * Sums are made in one fixed order, the binary tree over worker numbers that apd_tree_split()
 * defines and that the tree over lanes continues (worker/tree.h): for W a power of two the result
 * does not depend on W. All workers get the same bits. Every call is collective: all workers make
 * the same calls in the same order with the same sizes, on error paths too. Thread: step. */
#ifndef APD_WORKER_COMM_H
#define APD_WORKER_COMM_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum apd_sum_type { APD_SUM_F32, APD_SUM_F64 };

struct apd_comm;

struct apd_comm_ops {
    /* Begins the sum of buf[n] over all workers, in place. buf is not to be touched until wait().
     */
    enum apd_code (*sum_start)(struct apd_comm *comm, void *buf, size_t n, enum apd_sum_type type,
                               struct apd_err *err);
    /* Every sum started is complete for whoever uses the memory after this. */
    enum apd_code (*sum_wait)(struct apd_comm *comm, struct apd_err *err);
    /* Rows of row_bytes. send holds send_rows[w] rows for each worker w, one after another; recv
     * gets recv_rows[w] rows from each. */
    enum apd_code (*exchange_rows)(struct apd_comm *comm, size_t row_bytes, const void *send,
                                   const int *send_rows, void *recv, const int *recv_rows,
                                   struct apd_err *err);
    /* Ends the whole job at once with `status`; does not return for implementations that can. */
    void (*abort)(struct apd_comm *comm, int status);
    void (*destroy)(struct apd_comm *comm);
};

struct apd_comm {
    const struct apd_comm_ops *ops;
    int rank, size;      /* among workers, from 0 */
    size_t bucket_bytes; /* a sum of this size is worth starting by itself */
};

/* One worker: sums are the identity. */
APD_MUST_USE enum apd_code apd_comm_self(struct apd_comm **out, struct apd_err *err);

/* Blocking sum. */
APD_MUST_USE enum apd_code apd_comm_sum(struct apd_comm *comm, void *buf, size_t n,
                                        enum apd_sum_type type, struct apd_err *err);

#endif
