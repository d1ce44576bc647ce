/* What the run has reported: the newest step, speed over the last seconds, mean losses over about a
 * second, receipts of finished epochs, evaluations. Bounded; nothing grows with the run. Pure. */
#ifndef APD_DAEMON_METRICS_H
#define APD_DAEMON_METRICS_H

#include "proto/advprop.pb-c.h"

#include <stdint.h>

#define APD_METRICS_STEPS       256 /* reports kept for speed and means */
#define APD_METRICS_EVALUATIONS 32
#define APD_METRICS_RECEIPTS    16

struct apd_metrics_step {
    uint64_t at_ms;
    uint64_t position;
    double clean, noise, adv;
};

struct apd_metrics {
    Advprop__V1__StepReport last; /* last.step 0: none yet in this start */
    struct apd_metrics_step step[APD_METRICS_STEPS];
    double wait_ms, wait_of_ms; /* since apd_metrics_take_wait_share */
    uint64_t steps; /* reports taken; the newest is step[(steps - 1) % APD_METRICS_STEPS] */

    Advprop__V1__Evaluation evaluation[APD_METRICS_EVALUATIONS]; /* oldest first; owns the names */
    char evaluation_name[APD_METRICS_EVALUATIONS][32];
    uint32_t evaluations;

    Advprop__V1__Receipt receipt[APD_METRICS_RECEIPTS]; /* oldest first */
    uint32_t receipts;
};

void apd_metrics_init(struct apd_metrics *metrics);

/* 0 if the report is not newer than the last one; it is then not taken. */
int apd_metrics_step(struct apd_metrics *metrics, uint64_t now_ms,
                     const Advprop__V1__StepReport *report);

/* Share of the time of all steps reported since the last call that was spent waiting for data. */
double apd_metrics_take_wait_share(struct apd_metrics *metrics);

void apd_metrics_evaluation(struct apd_metrics *metrics, const Advprop__V1__Evaluation *evaluation);

/* Takes an epoch's receipt (a later one of the same epoch replaces it) and returns its place. */
Advprop__V1__Receipt *apd_metrics_receipt(struct apd_metrics *metrics,
                                          const Advprop__V1__Receipt *receipt);
/* NULL if there is none of this epoch. */
Advprop__V1__Receipt *apd_metrics_find_receipt(struct apd_metrics *metrics, uint32_t epoch);

/* Images committed a second over the last 5 s or the last two reports, whichever is longer; 0
 * without two reports, and when nothing has come for long. */
double apd_metrics_images_per_s(const struct apd_metrics *metrics, uint64_t now_ms);

/* Mean losses over the reports of the last second before the newest one, which always counts. */
void apd_metrics_means(const struct apd_metrics *metrics, double *out_clean, double *out_noise,
                       double *out_adv);

#endif
