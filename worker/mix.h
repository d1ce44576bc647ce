/* Mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019): who is mixed with whom, and
 * how much. Pure functions of seed, step, lane and pass, exact to the bit in docs/method.md
 * ("Variants"). Any thread. */
#ifndef APD_WORKER_MIX_H
#define APD_WORKER_MIX_H

#include "kernels/backend.h"
#include "proto/config.h"

#include <stdint.h>

enum { APD_MIX_CLEAN = 0, APD_MIX_ADV = 1, APD_MIX_NOISE_0 = 2 }; /* noise pass k: 2 + k */

struct apd_mix_place {
    uint64_t seed, step;
    uint32_t lane, pass;
};

/* Draws for the n images of one pass of a lane. kind: mixup or cutmix. out->partner is `partner`
 * ([n], of the caller); out->share is also the partner's share of the target. */
void apd_mix_draw(enum apd_mix_kind kind, double alpha, const struct apd_mix_place *place, int n,
                  struct apd_shape shape, int32_t *partner, struct apd_mix *out);

/* inverse[partner[i]] = i: the partners of the backward pass. */
void apd_mix_invert(const int32_t *partner, int n, int32_t *inverse);

#endif
