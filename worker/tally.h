/* The tally: everything a step adds up over lanes and workers besides gradients - losses, counts,
 * BN sums, receipts, flags - in one vector of doubles, summed in tree order by one all-reduce (the
 * commit). When it has been summed the step has happened; nothing of the step counts before.
 *
 * It is on the device: passes write their losses and BN sums straight into it, a lane a row, and
 * the host waits once a step, for the totals.
 *
 * BN sums are (sum x, sum x^2) of each lane in double, so pooled statistics are those of all lanes'
 * images together. Receipts are 64-bit and travel as two exact 32-bit halves. */
#ifndef APD_WORKER_TALLY_H
#define APD_WORKER_TALLY_H

#include "base/err.h"
#include "worker/comm.h"
#include "worker/data/loader.h"
#include "worker/model/net.h"

#include <stdint.h>

enum apd_branch { APD_CLEAN, APD_NOISE, APD_ADV, APD_BRANCHES };

/* Mean cross-entropy of the images; 0 without any. */
static inline double apd_mean_loss(const struct apd_loss *loss)
{
    return loss->images > 0 ? loss->ce_sum / (double)loss->images : 0;
}

/* Flags any worker may raise; every worker sees the union. */
enum { APD_FLAG_DRAIN = 1, APD_FLAG_STOP = 2, APD_FLAG_FAILED = 4 };

/* Committed samples of one epoch in one step. */
struct apd_step_receipt {
    uint32_t epoch;
    uint64_t samples, sum;
    uint64_t bad; /* of the samples, that could not be used */
};

struct apd_tally;

struct apd_tally_setup {
    struct apd_net *net;       /* not owned */
    struct apd_params *params; /* not owned */
    struct apd_comm *comm;     /* not owned; works on the backend's memory */
    int lanes;                 /* of this worker */
    int branches;              /* of a lane in the train pass: clean, or clean and adv */
    int noise_passes;
    int noise_records; /* noise passes that move running statistics: all or none */
    int bn_lanes;      /* lanes of this worker, from its first on, whose BN sums count */
};

APD_MUST_USE enum apd_code apd_tally_create(const struct apd_tally_setup *setup,
                                            struct apd_tally **out, struct apd_err *err);
void apd_tally_destroy(struct apd_tally **tally);

/* Where noise pass k of the lanes from `lane` on, a segment each, leaves losses and BN sums; and
 * where their train pass does, a segment for each branch of each lane. Sets loss, sums and
 * sums_stride of the pass. */
void apd_tally_noise_pass(struct apd_tally *tally, int lane, int k, struct apd_pass *pass);
void apd_tally_train_pass(struct apd_tally *tally, int lane, struct apd_pass *pass);

/* All rows of this worker; first_epoch: of the whole batch. */
void apd_tally_receipts(struct apd_tally *tally, const struct apd_step_data *data,
                        uint32_t first_epoch);

void apd_tally_flags(struct apd_tally *tally, unsigned flags);

/* Collective: the commit. gradient[n]: the summed gradient; whether it is finite is told with the
 * rest. Waits for the device. */
APD_MUST_USE enum apd_code apd_tally_sum(struct apd_tally *tally, const void *gradient, size_t n,
                                         struct apd_err *err);

/* After the sum: totals over all lanes of all workers. */
int apd_tally_is_finite(const struct apd_tally *tally);
void apd_tally_get_loss(const struct apd_tally *tally, enum apd_branch branch,
                        struct apd_loss *out);
unsigned apd_tally_get_flags(const struct apd_tally *tally);
void apd_tally_get_receipts(const struct apd_tally *tally, struct apd_step_receipt out[2]);

/* Moves the running statistics: main once by record K, aux by records 0 .. K - 1 and then K + 1.
 * main_images, aux_images: that the pooled sums are over; 0: leave the set alone. */
APD_MUST_USE enum apd_code apd_tally_update_running(struct apd_tally *tally, double main_images,
                                                    double aux_images, double momentum,
                                                    struct apd_err *err);

#endif
