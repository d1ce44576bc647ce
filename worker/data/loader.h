/* The loader: reads, augments and packs the images of this worker's lanes, up to three steps ahead.
 *
 * One thread of its own, named "decode", walks the plan and fills a ring of APD_LOADER_SLOTS step
 * slots. The step thread takes them in order. What it delivers is a function of the plan, the data
 * and the seed only: it does not depend on timing, on the number of workers or on where a run
 * began. */
#ifndef APD_WORKER_DATA_LOADER_H
#define APD_WORKER_DATA_LOADER_H

#include "base/err.h"
#include "proto/plan.h"
#include "worker/data/augment.h"
#include "worker/data/dataset.h"

#include <stdint.h>

enum { APD_LOADER_SLOTS = 3 };

struct apd_loader;

struct apd_loader_settings {
    const struct apd_plan_desc *plan;  /* copied: the decode thread uses a plan of its own */
    const struct apd_dataset *dataset; /* must outlive the loader */
    struct apd_augment_settings augment;
    uint32_t lane_first, lane_count; /* lanes of this worker */
    uint64_t first_step;
    uint64_t wait_timeout_ms; /* of apd_loader_step; > 0 */
};

/* One step's images of the owned lanes. Row r = (lane - lane_first) * lane_batch + j is image j of
 * the lane's slice, so a lane's rows are contiguous; the first `clean` of them
 * (apd_config_lane_split) are its clean images, the others its auxiliary ones. rows = lane_count *
 * lane_batch. */
struct apd_step_data {
    uint64_t step;
    uint32_t lane_first, lane_count, lane_batch;
    const uint8_t *pixels;  /* [rows][c][h][w] */
    const int32_t *labels;  /* [rows] */
    const uint64_t *sample; /* [rows] */
    const uint32_t *epoch;  /* [rows] */
};

/* Allocates the ring and starts the thread. APD_BUG if the plan does not fit the data set or the
 * lanes the plan. */
APD_MUST_USE enum apd_code apd_loader_create(const struct apd_loader_settings *settings,
                                             struct apd_loader **out, struct apd_err *err);

/* The data of `step`; blocks until it is there, at most wait_timeout_ms (APD_TIMEOUT). Steps are
 * asked for in order from first_step on; asking for the same step again gives the same data, asking
 * for the next one hands the former one's memory back. An error met on the way (APD_DATA and the
 * like, naming step, lane, epoch and sample) is delivered by the step it belongs to, and by every
 * later call. *out_wait_ms (may be NULL): time spent blocked. Step thread. */
APD_MUST_USE enum apd_code apd_loader_step(struct apd_loader *loader, uint64_t step,
                                           const struct apd_step_data **out, double *out_wait_ms,
                                           struct apd_err *err);

/* Stops the thread after the image in flight, joins it, frees. NULL ok; nulls. */
void apd_loader_destroy(struct apd_loader **loader);

#endif
