/* The factor of the loss: gradients of activations in fp16 need one, or small ones become zero.
 *
 * It multiplies the weights of images, so gradients come out times the factor; the update divides
 * by it. Always a power of two, so that both are exact. */
#ifndef APD_WORKER_LOSS_SCALE_H
#define APD_WORKER_LOSS_SCALE_H

#include <stdint.h>

struct apd_loss_scale {
    uint64_t factor;     /* 0: not needed, the factor is 1 and an overflow means divergence */
    uint64_t good_steps; /* since it changed */
};

enum { APD_LOSS_SCALE_MOST = 65536, APD_LOSS_SCALE_GROWTH = 2000 };

static inline double apd_loss_scale_of(const struct apd_loss_scale *scale)
{
    return scale->factor > 0 ? (double)scale->factor : 1;
}

/* After a step. finite: whether its gradient is. Returns whether training goes on: 0 if the
 * gradient overflows with the least factor, too. */
static inline int apd_loss_scale_update(struct apd_loss_scale *scale, int finite)
{
    if (!finite) {
        scale->good_steps = 0;
        if (scale->factor <= 1)
            return 0;
        scale->factor /= 2;
    } else if (scale->factor > 0 && ++scale->good_steps == APD_LOSS_SCALE_GROWTH) {
        scale->good_steps = 0;
        if (scale->factor < APD_LOSS_SCALE_MOST)
            scale->factor *= 2;
    }
    return 1;
}

#endif
