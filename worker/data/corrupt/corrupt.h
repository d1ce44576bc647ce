/* The corruptions of Hendrycks and Dietterich (ICLR 2019), by which robustness is measured, and the
 * four that they add for validation. Formulas, constants and draws: docs/corruptions.md; they are
 * those of the public code (hendrycks/robustness, ImageNet-C/create_c) but for frost.
 *
 * A pure function of image, corruption, severity, seed and sample. Any thread, with a scratch of
 * its own. */
#ifndef APD_WORKER_DATA_CORRUPT_CORRUPT_H
#define APD_WORKER_DATA_CORRUPT_CORRUPT_H

#include "base/err.h"
#include "worker/data/corrupt/field.h"
#include "worker/data/image.h"

#include <stdint.h>

enum {
    APD_CORRUPTIONS = 19,
    APD_CORRUPTIONS_MAIN = 15,   /* the first ones: those of the benchmark */
    APD_SEVERITIES = 5,          /* counted from 1 */
    APD_CORRUPTION_SMALL_PX = 64 /* no side longer: the constants of CIFAR-10-C */
};

struct apd_corrupt_task;

struct apd_corruption {
    const char *name, *group;
    enum apd_code (*apply)(struct apd_corrupt_task *task, struct apd_err *err);
    int of_bytes; /* works on the image itself, not on numbers */
};

/* By number, which is part of the random stream's name. */
extern const struct apd_corruption apd_corruptions[APD_CORRUPTIONS];

/* Memory of one thread; `= {0}` is a valid empty one. */
struct apd_corrupt_scratch {
    struct apd_field x, layer, other, spare;
    struct apd_image image;
};

void apd_corrupt_scratch_fini(struct apd_corrupt_scratch *scratch);

/* In place. APD_NOMEM; the image is then undefined. */
APD_MUST_USE enum apd_code apd_corrupt(int corruption, int severity, uint64_t seed, uint64_t sample,
                                       struct apd_corrupt_scratch *scratch, struct apd_image *image,
                                       struct apd_err *err);

#endif
