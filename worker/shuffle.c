#include "worker/shuffle.h"

#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

struct apd_shuffle {
    struct apd_backend *be;            /* not owned */
    struct apd_comm *comm, *host_comm; /* not owned */
    int *first;                        /* [size + 1] */
    int mine;                          /* slots of this worker */
    size_t row_elems;
    void *send, *recv; /* device, mine rows */
    int *send_rows, *recv_rows, *fill;
    int32_t *send_row, *recv_row; /* of the send and the receive buffer, of each of my slots */
    int32_t *send_labels, *recv_labels;
};

enum apd_code apd_shuffle_create(struct apd_backend *be, struct apd_comm *comm,
                                 struct apd_comm *host_comm, const int *first, size_t row_elems,
                                 struct apd_shuffle **out, struct apd_err *err)
{
    struct apd_shuffle *shuffle = calloc(1, sizeof *shuffle);
    size_t workers = (size_t)comm->size, mine;
    enum apd_code rc = APD_OK;

    if (shuffle == NULL)
        return apd_fail(err, APD_NOMEM, "shuffle");
    shuffle->be = be;
    shuffle->comm = comm;
    shuffle->host_comm = host_comm;
    shuffle->row_elems = row_elems;
    shuffle->mine = first[comm->rank + 1] - first[comm->rank];
    mine = (size_t)shuffle->mine;
    shuffle->first = malloc((workers + 1) * sizeof *shuffle->first);
    shuffle->send_rows = calloc(3 * workers, sizeof *shuffle->send_rows);
    shuffle->send_row = malloc(4 * (mine + 1) * sizeof *shuffle->send_row);
    if (shuffle->first == NULL || shuffle->send_rows == NULL || shuffle->send_row == NULL) {
        rc = apd_fail(err, APD_NOMEM, "shuffle of %zu images", mine);
        goto done;
    }
    memcpy(shuffle->first, first, (workers + 1) * sizeof *first);
    shuffle->recv_rows = shuffle->send_rows + workers;
    shuffle->fill = shuffle->recv_rows + workers;
    shuffle->recv_row = shuffle->send_row + mine;
    shuffle->send_labels = shuffle->recv_row + mine;
    shuffle->recv_labels = shuffle->send_labels + mine;
    APD_GO(be->ops->alloc(be, (mine + 1) * row_elems * be->elem_bytes, &shuffle->send, err));
    APD_GO(be->ops->alloc(be, (mine + 1) * row_elems * be->elem_bytes, &shuffle->recv, err));
    *out = shuffle;
    shuffle = NULL;
done:
    apd_shuffle_destroy(&shuffle);
    return rc;
}

void apd_shuffle_destroy(struct apd_shuffle **shuffle)
{
    struct apd_shuffle *dead = *shuffle;

    if (dead == NULL)
        return;
    if (dead->send != NULL)
        dead->be->ops->free(dead->be, dead->send);
    if (dead->recv != NULL)
        dead->be->ops->free(dead->be, dead->recv);
    free(dead->first);
    free(dead->send_rows);
    free(dead->send_row);
    free(dead);
    *shuffle = NULL;
}

int apd_shuffle_source(uint64_t seed, uint64_t step, int n, int d)
{
    struct apd_philox r = apd_rng(seed, APD_RNG_SHUFFLE, 0, step, 0);
    uint64_t key = (uint64_t)r.v[1] << 32 | r.v[0];

    return (int)apd_permute(key, (uint64_t)n, (uint64_t)d);
}

static int owner(const struct apd_shuffle *shuffle, int slot)
{
    int w = 0;

    while (slot >= shuffle->first[w + 1])
        w++;
    return w;
}

/* Walks all slots in order twice: first to count rows per peer, then to place them. Both sides of a
 * transfer see its rows in ascending order of the slot they go to. */
void apd_shuffle_plan(struct apd_shuffle *shuffle, uint64_t seed, uint64_t step, int enabled)
{
    int me = shuffle->comm->rank, size = shuffle->comm->size, n = shuffle->first[size];
    int *send_at = shuffle->fill;
    int recv_at = 0;

    memset(shuffle->send_rows, 0, 3 * (size_t)size * sizeof *shuffle->send_rows);
    for (int d = 0; d < n; d++) {
        int s = enabled ? apd_shuffle_source(seed, step, n, d) : d;
        int from = owner(shuffle, s), to = owner(shuffle, d);

        shuffle->send_rows[to] += from == me;
        shuffle->recv_rows[from] += to == me;
    }
    for (int w = 1; w < size; w++)
        send_at[w] = send_at[w - 1] + shuffle->send_rows[w - 1];
    for (int d = 0; d < n; d++) {
        int s = enabled ? apd_shuffle_source(seed, step, n, d) : d;
        int to = owner(shuffle, d);

        if (owner(shuffle, s) == me)
            shuffle->send_row[s - shuffle->first[me]] = send_at[to]++;
    }
    for (int w = 0; w < size; w++)
        for (int d = shuffle->first[me]; d < shuffle->first[me + 1]; d++) {
            int s = enabled ? apd_shuffle_source(seed, step, n, d) : d;

            if (owner(shuffle, s) == w)
                shuffle->recv_row[d - shuffle->first[me]] = recv_at++;
        }
}

void *apd_shuffle_send(const struct apd_shuffle *shuffle)
{
    return shuffle->send;
}

const int32_t *apd_shuffle_send_rows(const struct apd_shuffle *shuffle)
{
    return shuffle->send_row;
}

enum apd_code apd_shuffle_labels(struct apd_shuffle *shuffle, const int32_t *labels,
                                 int32_t *out_labels, struct apd_err *err)
{
    struct apd_comm *comm = shuffle->host_comm;

    for (int i = 0; i < shuffle->mine; i++)
        shuffle->send_labels[shuffle->send_row[i]] = labels[i];
    APD_TRY(comm->ops->exchange_rows(comm, sizeof *labels, shuffle->send_labels, shuffle->send_rows,
                                     shuffle->recv_labels, shuffle->recv_rows, err));
    for (int i = 0; i < shuffle->mine; i++)
        out_labels[i] = shuffle->recv_labels[shuffle->recv_row[i]];
    return APD_OK;
}

enum apd_code apd_shuffle_exchange(struct apd_shuffle *shuffle, struct apd_err *err)
{
    struct apd_comm *comm = shuffle->comm;

    return comm->ops->exchange_rows(comm, shuffle->row_elems * shuffle->be->elem_bytes,
                                    shuffle->send, shuffle->send_rows, shuffle->recv,
                                    shuffle->recv_rows, err);
}

enum apd_code apd_shuffle_take(struct apd_shuffle *shuffle, int first, int count, void *out_rows,
                               struct apd_err *err)
{
    struct apd_backend *be = shuffle->be;

    return be->ops->rows_gather(be, count, shuffle->row_elems, shuffle->recv,
                                shuffle->recv_row + first, out_rows, err);
}
