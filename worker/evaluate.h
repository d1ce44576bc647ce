/* Evaluation: top-1, top-5 and loss of a network on a data set, by main or auxiliary BN (running
 * statistics), clean or under a PGD attack, spread over the workers. Every image is counted exactly
 * once: worker w has images [w N / W, (w + 1) N / W), the last batch is filled with images of
 * weight 0. Sums are made over single images in their order, so that the number of workers does not
 * change them. docs/evaluation.md */
#ifndef APD_WORKER_EVALUATE_H
#define APD_WORKER_EVALUATE_H

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/comm.h"
#include "worker/data/sampler.h"
#include "worker/model/net.h"

#include <stdint.h>

struct apd_evaluation {
    struct apd_net *net;
    struct apd_params *params;
    struct apd_comm *comm;
    const struct apd_dataset *dataset;
    const struct apd_sampler_settings *sampler;
    int batch;       /* images at once; the net is planned for at least that many */
    uint64_t images; /* the first so many of the data set; 0: all */
    enum apd_bn_set set;
    int attack_steps;               /* PGD steps up the loss from a random start; 0: clean images */
    double attack_eps, attack_step; /* 1/255 pixel units */
    int restarts;  /* attacks that an image has to survive, each from a start of its own; 0: one */
    uint64_t seed; /* of the random starts */
    float *logits; /* NULL, or [images][classes], of the last restart: filled on every worker */
    struct apd_loss *by_class; /* NULL, or [classes]: overwritten on every worker */
    /* A data set with classes of its own: NULL, or [its classes], the network's class for each. */
    const int32_t *label_of;
    /* NULL, or [classes]: only these can be predicted, the logits of the others do not count. */
    const uint8_t *allowed;
    struct apd_prediction *predictions; /* NULL, or [images]: overwritten on every worker */
};

/* What became of one image. */
struct apd_prediction {
    int32_t label;     /* -1: the image cannot be used */
    int32_t predicted; /* class of the greatest logit, in the last restart */
    int top1, top5;
    double loss;
};

/* Collective. *out: over all images that can be used; of an image that is attacked more than once
 * the largest loss, and it is right (top-1, top-5) if it was right every time. */
APD_MUST_USE enum apd_code apd_evaluate(const struct apd_evaluation *evaluation,
                                        struct apd_loss *out, struct apd_err *err);

/* Makes what an evaluation in batches of `batch` has on the device, and frees it: for a backend
 * that plans its memory. */
APD_MUST_USE enum apd_code apd_evaluate_make(const struct apd_params *params, int batch,
                                             struct apd_err *err);

#endif
