/* The loader: reads, augments and packs the images of this worker's lanes, some steps ahead.
 *
 * Threads of its own, named "decode", walk the plan and fill a ring of step slots; the step thread
 * takes them in order. What it delivers is a function of the plan, the data and the seed only: it
 * does not depend on timing, on the number of threads or workers, or on where a run began. Memory
 * is that of the ring. Nothing outlives the process. */
#ifndef APD_WORKER_DATA_LOADER_H
#define APD_WORKER_DATA_LOADER_H

#include "base/err.h"
#include "proto/plan.h"
#include "worker/data/dataset.h"
#include "worker/data/sampler.h"

#include <stdint.h>

enum { APD_BAD_REASON = 200 };

struct apd_loader;

struct apd_loader_settings {
    const struct apd_plan_desc *plan;  /* copied: every decode thread uses a plan of its own */
    const struct apd_dataset *dataset; /* must outlive the loader */
    struct apd_sampler_settings sampler;
    uint32_t lane_first, lane_count; /* lanes of this worker */
    uint64_t first_step;
    int threads;              /* > 0 */
    uint32_t slots;           /* steps in memory, the one in use included; > 1 */
    uint64_t wait_timeout_ms; /* of apd_loader_step; > 0 */
    /* Step thread, about once a second while a step is waited for: `text` says what for. May be
     * NULL. */
    void (*on_wait)(void *ctx, const char *text);
    void *ctx;
};

/* A sample that could not be used. */
struct apd_bad_sample {
    uint32_t row;
    char reason[APD_BAD_REASON];
};

/* One step's images of the owned lanes. Row r = (lane - lane_first) * lane_batch + j is image j of
 * the lane's slice, so a lane's rows are contiguous; the first `clean` of them
 * (apd_config_lane_split) are its clean images, the others its auxiliary ones. rows = lane_count *
 * lane_batch. Rows of bad samples are grey and have label -1. */
struct apd_step_data {
    uint64_t step;
    uint32_t lane_first, lane_count, lane_batch;
    const uint8_t *pixels;            /* [rows][c][h][w] */
    const int32_t *labels;            /* [rows] */
    const uint64_t *sample;           /* [rows] */
    const uint32_t *epoch;            /* [rows] */
    const struct apd_bad_sample *bad; /* [bad_count], by row */
    uint32_t bad_count;
};

/* Allocates the ring and starts the threads. APD_BUG if the plan does not fit the data set or the
 * lanes the plan. */
APD_MUST_USE enum apd_code apd_loader_create(const struct apd_loader_settings *settings,
                                             struct apd_loader **out, struct apd_err *err);

/* The data of `step`; blocks until it is there, at most wait_timeout_ms (APD_TIMEOUT). Steps are
 * asked for in order from first_step on; asking for the same step again gives the same data, asking
 * for the next one hands the former one's memory back. A bad sample (APD_DATA) is a row of the
 * step; any other error met on the way (naming step, lane, epoch and sample) is delivered by the
 * step it belongs to, and by every later call. *out_wait_ms (may be NULL): time spent blocked. Step
 * thread. */
APD_MUST_USE enum apd_code apd_loader_step(struct apd_loader *loader, uint64_t step,
                                           const struct apd_step_data **out, double *out_wait_ms,
                                           struct apd_err *err);

/* The data of the step after the one in use if it is complete, else NULL; never waits for it. It is
 * what apd_loader_step will give (`bad` not in order yet), and stays until that is asked for the
 * step after it. Step thread. */
const struct apd_step_data *apd_loader_next(struct apd_loader *loader);

/* Where the pixels of ring slot i are, for a device that wants to pin them; NULL past the last
 * slot. */
void *apd_loader_pixels(const struct apd_loader *loader, uint32_t i, size_t *out_bytes);

/* Stops the threads after the images in flight, joins them, frees. NULL ok; nulls. */
void apd_loader_destroy(struct apd_loader **loader);

#endif
