/* The tally: everything a step adds up over lanes and workers besides gradients - losses, counts,
 * BN sums, receipts, flags - in one vector of doubles, summed in tree order by one all-reduce (the
 * commit). When it has been summed the step has happened; nothing of the step counts before.
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

/* lanes: of this worker. noise_passes: those that move running statistics. */
APD_MUST_USE enum apd_code apd_tally_create(struct apd_net *net, struct apd_params *params,
                                            struct apd_comm *comm, int lanes, int noise_passes,
                                            struct apd_tally **out, struct apd_err *err);
void apd_tally_destroy(struct apd_tally **tally);

/* Forgets the step before. */
void apd_tally_reset(struct apd_tally *tally);

void apd_tally_loss(struct apd_tally *tally, int lane, enum apd_branch branch,
                    const struct apd_loss *loss);

/* BN record 0 .. K - 1: noise passes, K: main, K + 1: adv. `sums` is apd_pass.sums (device) of a
 * pass with `segments` segments; segment's part goes to this worker's `lane`. */
APD_MUST_USE enum apd_code apd_tally_bn(struct apd_tally *tally, int lane, int record,
                                        const double *sums, int segment, int segments,
                                        struct apd_err *err);

/* All rows of this worker; first_epoch: of the whole batch. */
void apd_tally_receipts(struct apd_tally *tally, const struct apd_step_data *data,
                        uint32_t first_epoch);

void apd_tally_flags(struct apd_tally *tally, unsigned flags);

/* Collective: the commit. */
APD_MUST_USE enum apd_code apd_tally_sum(struct apd_tally *tally, struct apd_err *err);

/* After the sum: totals over all lanes of all workers. */
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
