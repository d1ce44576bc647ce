#include "worker/optim/schedule.h"

#include <math.h>
#include <string.h>

void apd_lr_schedule_init(struct apd_lr_schedule *schedule, const struct apd_config *config,
                          uint64_t samples)
{
    double milestones[APD_MILESTONES] = {0};

    memset(schedule, 0, sizeof *schedule);
    apd_config_budget(config, &schedule->epochs, milestones);
    schedule->kind = (int)config->schedule.kind;
    schedule->base = config->optim.lr;
    schedule->gamma = config->schedule.gamma;
    schedule->steps_per_epoch = (double)samples / (double)config->train.batch;
    schedule->milestones = (int)config->schedule.milestone_count;
    for (int i = 0; i < schedule->milestones; i++)
        schedule->milestone_step[i] = milestones[i] * schedule->steps_per_epoch;
    schedule->warmup_steps = config->schedule.warmup_epochs * schedule->steps_per_epoch;
    schedule->steps = apd_config_steps(config, samples, &schedule->full_steps);
}

double apd_lr_schedule_at(const struct apd_lr_schedule *schedule, uint64_t step)
{
    double t = (double)step, lr = schedule->base;

    if (schedule->kind == APD_SCHEDULE_COSINE) {
        lr *= 0.5 * (1 + cos(M_PI * t / (double)schedule->full_steps));
    } else {
        for (int i = 0; i < schedule->milestones; i++)
            if (t >= schedule->milestone_step[i])
                lr *= schedule->gamma;
    }
    if (t + 1 < schedule->warmup_steps)
        lr *= (t + 1) / schedule->warmup_steps;
    return lr;
}
