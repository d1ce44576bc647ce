/* Length of the training and the learning rate of each step: a pure function of the configuration
 * and N. */
#ifndef APD_WORKER_OPTIM_SCHEDULE_H
#define APD_WORKER_OPTIM_SCHEDULE_H

#include "proto/config.h"

#include <stdint.h>

struct apd_lr_schedule {
    int kind; /* enum apd_schedule */
    double base, gamma;
    int milestones;
    double milestone_step[APD_MILESTONES];
    double warmup_steps;
    uint64_t steps;      /* of the run: ceil(epochs N / B), at most train.max_steps */
    uint64_t full_steps; /* without train.max_steps: what cosine runs over */
    double steps_per_epoch;
    double epochs; /* after the same-budget rule */
};

/* samples: N > 0. */
void apd_lr_schedule_init(struct apd_lr_schedule *schedule, const struct apd_config *config,
                          uint64_t samples);

/* Rate of step t (from 0). Warm-up: linear, (t + 1) / warmup_steps of the rate it would have. Step:
 * base * gamma^(milestones reached). Cosine: base / 2 (1 + cos(pi t / full_steps)). */
double apd_lr_schedule_at(const struct apd_lr_schedule *schedule, uint64_t step);

#endif
