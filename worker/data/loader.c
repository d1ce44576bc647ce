/* The ring: slot of step s is s mod APD_LOADER_SLOTS. The decode thread owns the slot it fills, the
 * step thread the one it was handed; `filled` and `released`, under the lock, say which those are:
 *
 *   released        filled          released + SLOTS
 *      |  ready, or  |  being filled,  |
 *      |  in use     |  then free      |
 *
 * Both count steps from first_step on. */
#include "worker/data/loader.h"

#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

struct slot {
    struct apd_step_data data; /* points into the arrays below */
    uint8_t *pixels;
    int32_t *labels;
    uint64_t *sample;
    uint32_t *epoch;
};

struct apd_loader {
    struct apd_plan *plan; /* decode thread only */
    const struct apd_dataset *dataset;
    struct apd_augment_settings augment;
    uint32_t lane_first, lane_count, lane_batch;
    uint64_t wait_timeout_ms;
    uint8_t *image; /* one image before augmentation; decode thread only */
    struct slot slots[APD_LOADER_SLOTS];

    pthread_t thread;
    int started, lock_ready, changed_ready;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* any of the fields below */
    uint64_t filled;        /* steps below it are ready */
    uint64_t released;      /* steps below it are done with */
    int stop;
    struct apd_err failure; /* of step `filled`; code APD_OK while there is none */
};

/* ---------------------------------------------------------------- decode thread */

static int must_stop(struct apd_loader *loader)
{
    int stop;

    pthread_mutex_lock(&loader->lock);
    stop = loader->stop;
    pthread_mutex_unlock(&loader->lock);
    return stop;
}

static enum apd_code fill_row(struct apd_loader *loader, const struct apd_place *place, size_t row,
                              struct slot *slot, struct apd_err *err)
{
    const struct apd_dataset *dataset = loader->dataset;
    uint8_t *pixels = slot->pixels + row * apd_dataset_image_bytes(dataset);

    slot->sample[row] = place->sample;
    slot->epoch[row] = place->epoch;
    APD_TRY(apd_dataset_read(dataset, place->sample, loader->image, &slot->labels[row], err));
    apd_augment_apply(apd_augment_choose(&loader->augment, place->epoch, place->sample), dataset->c,
                      dataset->h, dataset->w, loader->image, pixels);
    return APD_OK;
}

/* APD_CANCELED: the loader is being destroyed. */
static enum apd_code fill_slot(struct apd_loader *loader, uint64_t step, struct slot *slot,
                               struct apd_err *err)
{
    struct apd_place place;
    size_t row = 0;

    for (uint32_t lane = loader->lane_first; lane < loader->lane_first + loader->lane_count; lane++)
        for (uint32_t j = 0; j < loader->lane_batch; j++, row++) {
            if (must_stop(loader))
                return apd_fail(err, APD_CANCELED, "the loader is being destroyed");
            apd_plan_at(loader->plan, step, lane, j, &place);
            if (fill_row(loader, &place, row, slot, err) != APD_OK)
                return apd_prefix(err, "step %" PRIu64 ", lane %u, epoch %u, sample %" PRIu64, step,
                                  lane, place.epoch, place.sample);
        }
    slot->data.step = step;
    return APD_OK;
}

/* Waits for a free slot; returns 0 if there will be none. */
static int next_step(struct apd_loader *loader, uint64_t *out_step)
{
    int go;

    pthread_mutex_lock(&loader->lock);
    while (!loader->stop && loader->filled >= loader->released + APD_LOADER_SLOTS)
        pthread_cond_wait(&loader->changed, &loader->lock);
    *out_step = loader->filled;
    go = !loader->stop;
    pthread_mutex_unlock(&loader->lock);
    return go;
}

static void publish(struct apd_loader *loader, enum apd_code rc, const struct apd_err *err)
{
    pthread_mutex_lock(&loader->lock);
    if (rc == APD_OK)
        loader->filled++;
    else
        loader->failure = *err;
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->lock);
}

static void *decode_thread(void *argument)
{
    struct apd_loader *loader = argument;
    enum apd_code rc = APD_OK;
    struct apd_err err;
    uint64_t step;

    (void)prctl(PR_SET_NAME, "decode");
    while (rc == APD_OK && next_step(loader, &step)) {
        rc = fill_slot(loader, step, &loader->slots[step % APD_LOADER_SLOTS], &err);
        publish(loader, rc, &err);
    }
    return NULL;
}

/* ---------------------------------------------------------------- step thread */

static enum apd_code check_settings(const struct apd_loader_settings *settings, struct apd_err *err)
{
    const struct apd_plan_desc *plan = settings->plan;

    if (plan->samples != settings->dataset->samples)
        return apd_fail(err, APD_BUG, "loader: plan of %" PRIu64 " samples, data set of %" PRIu64,
                        plan->samples, settings->dataset->samples);
    if (settings->lane_count == 0 ||
        (uint64_t)settings->lane_first + settings->lane_count > plan->lanes)
        return apd_fail(err, APD_BUG, "loader: lanes %u to %u of %u", settings->lane_first,
                        settings->lane_first + settings->lane_count - 1, plan->lanes);
    return APD_OK;
}

static int allocate_slot(const struct apd_loader *loader, struct slot *slot)
{
    size_t rows = (size_t)loader->lane_count * loader->lane_batch;

    slot->pixels = calloc(rows, apd_dataset_image_bytes(loader->dataset));
    slot->labels = calloc(rows, sizeof *slot->labels);
    slot->sample = calloc(rows, sizeof *slot->sample);
    slot->epoch = calloc(rows, sizeof *slot->epoch);
    slot->data = (struct apd_step_data){
        .lane_first = loader->lane_first,
        .lane_count = loader->lane_count,
        .lane_batch = loader->lane_batch,
        .pixels = slot->pixels,
        .labels = slot->labels,
        .sample = slot->sample,
        .epoch = slot->epoch,
    };
    return slot->pixels != NULL && slot->labels != NULL && slot->sample != NULL &&
           slot->epoch != NULL;
}

static enum apd_code allocate(struct apd_loader *loader, struct apd_err *err)
{
    int have;

    loader->image = malloc(apd_dataset_image_bytes(loader->dataset));
    have = loader->image != NULL;
    for (int i = 0; i < APD_LOADER_SLOTS; i++)
        have = allocate_slot(loader, &loader->slots[i]) && have;
    if (!have)
        return apd_fail(err, APD_NOMEM, "loader: %d slots of %u lanes of %u images",
                        APD_LOADER_SLOTS, loader->lane_count, loader->lane_batch);
    return APD_OK;
}

/* Deadlines are taken from the monotonic clock. */
static int init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    int failed = pthread_condattr_init(&attributes);

    if (failed != 0)
        return failed;
    failed = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (failed == 0)
        failed = pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
    return failed;
}

static enum apd_code start_thread(struct apd_loader *loader, struct apd_err *err)
{
    int failed;

    loader->lock_ready = pthread_mutex_init(&loader->lock, NULL) == 0;
    loader->changed_ready = init_condition(&loader->changed) == 0;
    if (!loader->lock_ready || !loader->changed_ready)
        return apd_fail(err, APD_NOMEM, "loader: lock of the decode thread");
    failed = pthread_create(&loader->thread, NULL, decode_thread, loader);
    if (failed != 0) {
        errno = failed;
        return apd_fail_errno(err, "starting the decode thread");
    }
    loader->started = 1;
    return APD_OK;
}

enum apd_code apd_loader_create(const struct apd_loader_settings *settings, struct apd_loader **out,
                                struct apd_err *err)
{
    struct apd_loader *loader;
    enum apd_code rc;

    APD_TRY(check_settings(settings, err));
    loader = calloc(1, sizeof *loader);
    if (loader == NULL)
        return apd_fail(err, APD_NOMEM, "loader");
    loader->dataset = settings->dataset;
    loader->augment = settings->augment;
    loader->lane_first = settings->lane_first;
    loader->lane_count = settings->lane_count;
    loader->lane_batch = settings->plan->lane_batch;
    loader->wait_timeout_ms = settings->wait_timeout_ms;
    loader->filled = loader->released = settings->first_step;
    APD_GO(apd_plan_create(settings->plan, &loader->plan, err));
    APD_GO(allocate(loader, err));
    APD_GO(start_thread(loader, err));
    *out = loader;
    loader = NULL;
done:
    apd_loader_destroy(&loader);
    return rc;
}

static struct timespec deadline_after(uint64_t timeout_ms)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)(timeout_ms / 1000);
    at.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

/* With the lock held. */
static enum apd_code wait_filled(struct apd_loader *loader, uint64_t step, struct apd_err *err)
{
    struct timespec deadline = deadline_after(loader->wait_timeout_ms);
    int late = 0;

    while (loader->filled <= step && loader->failure.code == APD_OK && !late)
        late = pthread_cond_timedwait(&loader->changed, &loader->lock, &deadline) == ETIMEDOUT;
    if (loader->filled > step)
        return APD_OK;
    if (loader->failure.code != APD_OK) {
        *err = loader->failure;
        return err->code;
    }
    return apd_fail(err, APD_TIMEOUT,
                    "the data of step %" PRIu64 " did not come within %" PRIu64 " ms", step,
                    loader->wait_timeout_ms);
}

enum apd_code apd_loader_step(struct apd_loader *loader, uint64_t step,
                              const struct apd_step_data **out, double *out_wait_ms,
                              struct apd_err *err)
{
    double start_s = apd_now_s();
    enum apd_code rc = APD_OK;

    pthread_mutex_lock(&loader->lock);
    if (step != loader->released && step != loader->released + 1)
        rc = apd_fail(err, APD_BUG,
                      "loader: step %" PRIu64 " asked for, expected %" PRIu64 " or the next", step,
                      loader->released);
    if (rc == APD_OK) {
        loader->released = step;
        pthread_cond_broadcast(&loader->changed);
        rc = wait_filled(loader, step, err);
    }
    pthread_mutex_unlock(&loader->lock);
    if (rc != APD_OK)
        return rc;
    *out = &loader->slots[step % APD_LOADER_SLOTS].data;
    if (out_wait_ms != NULL)
        *out_wait_ms = (apd_now_s() - start_s) * 1e3;
    return APD_OK;
}

static void free_slot(struct slot *slot)
{
    free(slot->pixels);
    free(slot->labels);
    free(slot->sample);
    free(slot->epoch);
}

void apd_loader_destroy(struct apd_loader **loader)
{
    struct apd_loader *dead = *loader;

    if (dead == NULL)
        return;
    if (dead->started) {
        pthread_mutex_lock(&dead->lock);
        dead->stop = 1;
        pthread_cond_broadcast(&dead->changed);
        pthread_mutex_unlock(&dead->lock);
        pthread_join(dead->thread, NULL);
    }
    if (dead->changed_ready)
        pthread_cond_destroy(&dead->changed);
    if (dead->lock_ready)
        pthread_mutex_destroy(&dead->lock);
    for (int i = 0; i < APD_LOADER_SLOTS; i++)
        free_slot(&dead->slots[i]);
    apd_plan_destroy(&dead->plan);
    free(dead->image);
    free(dead);
    *loader = NULL;
}
