/* The ring: slot of step s is s mod slots. Work is handed out row by row in the order of the plan,
 * at most `slots` steps ahead of the step in use:
 *
 *   released                        next row                 released + slots
 *      |  ready, in use, or being      |  to be handed out,      |
 *      |  filled by some threads       |  slots are free         |
 *
 * A slot is ready when all of its rows are filled. Whatever decides that (rows left, next row, what
 * is released) is under the lock; rows themselves belong to the thread that fills them. */
#include "worker/data/loader.h"

#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { GREY = 128, WAIT_SLICE_MS = 1000 };

struct slot {
    struct apd_step_data data; /* points into the arrays below */
    uint8_t *pixels;
    int32_t *labels;
    uint64_t *sample;
    uint32_t *epoch;
    struct apd_bad_sample *bad; /* grows; under the lock while the slot is filled */
    size_t bad_capacity;
    size_t rows_left;
};

struct decoder {
    struct apd_loader *loader;
    struct apd_plan *plan;
    struct apd_sampler *sampler;
    pthread_t thread;
    int started;
    /* Under the lock: what it reads, and since when. */
    int busy;
    struct apd_place place;
    double since_s;
};

struct apd_loader {
    const struct apd_dataset *dataset;
    size_t image_bytes; /* of an image that comes out */
    size_t rows;        /* of a step */
    uint32_t lane_first, lane_count, lane_batch, slot_count;
    uint64_t wait_timeout_ms;
    void (*on_wait)(void *ctx, const char *text);
    void *ctx;
    struct slot *slots;
    struct decoder *decoders;
    int decoder_count;

    int lock_ready, changed_ready;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* any of the fields below */
    uint64_t next_step;     /* of the next row to hand out */
    size_t next_row;
    uint64_t released; /* steps below it are done with */
    int stop;
    struct apd_err failure; /* code APD_OK while there is none */
    uint64_t failed_step;
};

static struct slot *slot_of(const struct apd_loader *loader, uint64_t step)
{
    return &loader->slots[step % loader->slot_count];
}

/* ---------------------------------------------------------------- decode threads */

/* The next row, with the lock held; waits for a free slot. 0: there will be none. */
static int take_row(struct apd_loader *loader, uint64_t *out_step, size_t *out_row)
{
    while (!loader->stop && loader->failure.code == APD_OK &&
           loader->next_step >= loader->released + loader->slot_count)
        pthread_cond_wait(&loader->changed, &loader->lock);
    if (loader->stop || loader->failure.code != APD_OK)
        return 0;
    if (loader->next_row == 0) {
        struct slot *slot = slot_of(loader, loader->next_step);

        slot->data.step = loader->next_step;
        slot->data.bad_count = 0;
        slot->rows_left = loader->rows;
    }
    *out_step = loader->next_step;
    *out_row = loader->next_row++;
    if (loader->next_row == loader->rows) {
        loader->next_row = 0;
        loader->next_step++;
    }
    return 1;
}

/* Marks the row's sample as bad; with the lock held. */
static enum apd_code note_bad(struct apd_loader *loader, struct slot *slot, size_t row,
                              const char *reason, struct apd_err *err)
{
    if (slot->data.bad_count == slot->bad_capacity) {
        size_t capacity = 2 * slot->bad_capacity + 8;
        struct apd_bad_sample *grown = realloc(slot->bad, capacity * sizeof *grown);

        if (grown == NULL)
            return apd_fail(err, APD_NOMEM, "list of %zu bad samples", capacity);
        slot->data.bad = slot->bad = grown;
        slot->bad_capacity = capacity;
    }
    slot->bad[slot->data.bad_count].row = (uint32_t)row;
    (void)snprintf(slot->bad[slot->data.bad_count].reason, APD_BAD_REASON, "%.*s",
                   APD_BAD_REASON - 1, reason);
    slot->data.bad_count++;
    slot->labels[row] = -1;
    memset(slot->pixels + row * loader->image_bytes, GREY, loader->image_bytes);
    return APD_OK;
}

/* The row is filled, or `rc` is why not; with the lock held. */
static void finish_row(struct apd_loader *loader, const struct decoder *decoder, uint64_t step,
                       size_t row, enum apd_code rc, struct apd_err *err)
{
    struct slot *slot = slot_of(loader, step);
    const struct apd_place *place = &decoder->place;

    if (rc == APD_DATA)
        rc = note_bad(loader, slot, row, err->msg, err);
    if (rc == APD_OK) {
        slot->rows_left--;
    } else if (loader->failure.code == APD_OK || step < loader->failed_step) {
        (void)apd_prefix(err, "step %" PRIu64 ", lane %u, epoch %u, sample %" PRIu64, step,
                         loader->lane_first + (uint32_t)(row / loader->lane_batch), place->epoch,
                         place->sample);
        loader->failure = *err;
        loader->failed_step = step;
    }
    if (slot->rows_left == 0 || rc != APD_OK)
        pthread_cond_broadcast(&loader->changed);
}

static enum apd_code fill_row(struct decoder *decoder, struct slot *slot, size_t row,
                              struct apd_err *err)
{
    const struct apd_place *place = &decoder->place;

    slot->sample[row] = place->sample;
    slot->epoch[row] = place->epoch;
    return apd_sampler_run(decoder->sampler, place->epoch, place->sample,
                           slot->pixels + row * decoder->loader->image_bytes, &slot->labels[row],
                           err);
}

static void *decode_thread(void *argument)
{
    struct decoder *decoder = argument;
    struct apd_loader *loader = decoder->loader;
    uint64_t step;
    size_t row;

    (void)prctl(PR_SET_NAME, "decode");
    pthread_mutex_lock(&loader->lock);
    while (take_row(loader, &step, &row)) {
        struct apd_err err = {0};
        enum apd_code rc;

        apd_plan_at(decoder->plan, step, loader->lane_first + (uint32_t)(row / loader->lane_batch),
                    (uint32_t)(row % loader->lane_batch), &decoder->place);
        decoder->since_s = apd_now_s();
        decoder->busy = 1;
        pthread_mutex_unlock(&loader->lock);
        rc = fill_row(decoder, slot_of(loader, step), row, &err);
        pthread_mutex_lock(&loader->lock);
        decoder->busy = 0;
        finish_row(loader, decoder, step, row, rc, &err);
    }
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}

/* ---------------------------------------------------------------- making */

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
    if (settings->threads < 1 || settings->slots < 2)
        return apd_fail(err, APD_BUG, "loader: %d threads and %u slots", settings->threads,
                        settings->slots);
    return APD_OK;
}

/* Whole pages: they may be pinned, which is done by the page and once for each. */
static void *allocate_pages(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    void *pages = aligned_alloc(page, whole);

    return pages != NULL ? memset(pages, 0, whole) : NULL;
}

static int allocate_slot(const struct apd_loader *loader, struct slot *slot)
{
    size_t rows = loader->rows;

    slot->pixels = allocate_pages(rows * loader->image_bytes);
    slot->labels = calloc(rows, sizeof *slot->labels);
    slot->sample = calloc(rows, sizeof *slot->sample);
    slot->epoch = calloc(rows, sizeof *slot->epoch);
    slot->data = (struct apd_step_data){
        .step = UINT64_MAX,
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

static enum apd_code allocate(struct apd_loader *loader, int threads, struct apd_err *err)
{
    int have;

    loader->slots = calloc(loader->slot_count, sizeof *loader->slots);
    loader->decoders = calloc((size_t)threads, sizeof *loader->decoders);
    have = loader->slots != NULL && loader->decoders != NULL;
    for (uint32_t i = 0; have && i < loader->slot_count; i++)
        have = allocate_slot(loader, &loader->slots[i]);
    if (!have)
        return apd_fail(err, APD_NOMEM, "loader: %u slots of %u lanes of %u images",
                        loader->slot_count, loader->lane_count, loader->lane_batch);
    loader->decoder_count = threads;
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

static enum apd_code start_decoder(const struct apd_loader_settings *settings,
                                   struct apd_loader *loader, struct decoder *decoder,
                                   struct apd_err *err)
{
    int failed;

    decoder->loader = loader;
    APD_TRY(apd_plan_create(settings->plan, &decoder->plan, err));
    APD_TRY(apd_sampler_create(&settings->sampler, settings->dataset, &decoder->sampler, err));
    failed = pthread_create(&decoder->thread, NULL, decode_thread, decoder);
    if (failed != 0) {
        errno = failed;
        return apd_fail_errno(err, "starting a decode thread");
    }
    decoder->started = 1;
    return APD_OK;
}

static enum apd_code start(const struct apd_loader_settings *settings, struct apd_loader *loader,
                           struct apd_err *err)
{
    loader->lock_ready = pthread_mutex_init(&loader->lock, NULL) == 0;
    loader->changed_ready = init_condition(&loader->changed) == 0;
    if (!loader->lock_ready || !loader->changed_ready)
        return apd_fail(err, APD_NOMEM, "loader: lock of the decode threads");
    for (int i = 0; i < loader->decoder_count; i++)
        APD_TRY(start_decoder(settings, loader, &loader->decoders[i], err));
    return APD_OK;
}

enum apd_code apd_loader_create(const struct apd_loader_settings *settings, struct apd_loader **out,
                                struct apd_err *err)
{
    struct apd_loader *loader;
    struct apd_shape shape;
    enum apd_code rc;

    APD_TRY(check_settings(settings, err));
    APD_TRY(apd_sampler_shape(&settings->sampler, settings->dataset, &shape, err));
    loader = calloc(1, sizeof *loader);
    if (loader == NULL)
        return apd_fail(err, APD_NOMEM, "loader");
    loader->dataset = settings->dataset;
    loader->image_bytes = (size_t)shape.c * (size_t)shape.h * (size_t)shape.w;
    loader->lane_first = settings->lane_first;
    loader->lane_count = settings->lane_count;
    loader->lane_batch = settings->plan->lane_batch;
    loader->rows = (size_t)loader->lane_count * loader->lane_batch;
    loader->slot_count = settings->slots;
    loader->wait_timeout_ms = settings->wait_timeout_ms;
    loader->on_wait = settings->on_wait;
    loader->ctx = settings->ctx;
    loader->next_step = loader->released = settings->first_step;
    APD_GO(allocate(loader, settings->threads, err));
    APD_GO(start(settings, loader, err));
    *out = loader;
    loader = NULL;
done:
    apd_loader_destroy(&loader);
    return rc;
}

/* ---------------------------------------------------------------- step thread */

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
static int is_ready(const struct apd_loader *loader, uint64_t step)
{
    const struct slot *slot = slot_of(loader, step);

    return slot->data.step == step && slot->rows_left == 0;
}

/* What has been read for longest, with the lock held. */
static void tell_waiting(const struct apd_loader *loader)
{
    const struct decoder *slowest = NULL;
    char text[96];

    for (int i = 0; i < loader->decoder_count; i++) {
        const struct decoder *decoder = &loader->decoders[i];

        if (decoder->busy && (slowest == NULL || decoder->since_s < slowest->since_s))
            slowest = decoder;
    }
    if (slowest == NULL || loader->on_wait == NULL)
        return;
    (void)snprintf(text, sizeof text, "shard %u, sample %" PRIu64 ", for %.0f s",
                   slowest->place.shard, slowest->place.sample, apd_now_s() - slowest->since_s);
    loader->on_wait(loader->ctx, text);
}

/* With the lock held. */
static enum apd_code wait_ready(struct apd_loader *loader, uint64_t step, struct apd_err *err)
{
    double end_s = apd_now_s() + (double)loader->wait_timeout_ms / 1000;

    while (!is_ready(loader, step)) {
        uint64_t slice = loader->wait_timeout_ms < WAIT_SLICE_MS ? loader->wait_timeout_ms
                                                                 : (uint64_t)WAIT_SLICE_MS;
        struct timespec deadline = deadline_after(slice);

        if (loader->failure.code != APD_OK && loader->failed_step <= step) {
            *err = loader->failure;
            return err->code;
        }
        if (apd_now_s() >= end_s)
            return apd_fail(err, APD_TIMEOUT,
                            "the data of step %" PRIu64 " did not come within %" PRIu64 " ms", step,
                            loader->wait_timeout_ms);
        if (pthread_cond_timedwait(&loader->changed, &loader->lock, &deadline) == ETIMEDOUT)
            tell_waiting(loader);
    }
    return APD_OK;
}

static int by_row(const void *a, const void *b)
{
    uint32_t x = ((const struct apd_bad_sample *)a)->row;
    uint32_t y = ((const struct apd_bad_sample *)b)->row;

    return (x > y) - (x < y);
}

enum apd_code apd_loader_step(struct apd_loader *loader, uint64_t step,
                              const struct apd_step_data **out, double *out_wait_ms,
                              struct apd_err *err)
{
    struct slot *slot = slot_of(loader, step);
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
        rc = wait_ready(loader, step, err);
    }
    pthread_mutex_unlock(&loader->lock);
    if (rc != APD_OK)
        return rc;
    if (slot->data.bad_count > 1)
        qsort(slot->bad, slot->data.bad_count, sizeof *slot->bad, by_row);
    *out = &slot->data;
    if (out_wait_ms != NULL)
        *out_wait_ms = (apd_now_s() - start_s) * 1e3;
    return APD_OK;
}

const struct apd_step_data *apd_loader_next(struct apd_loader *loader)
{
    const struct apd_step_data *next = NULL;

    pthread_mutex_lock(&loader->lock);
    if (is_ready(loader, loader->released + 1))
        next = &slot_of(loader, loader->released + 1)->data;
    pthread_mutex_unlock(&loader->lock);
    return next;
}

/* ---------------------------------------------------------------- end */

static void free_slot(struct slot *slot)
{
    free(slot->pixels);
    free(slot->labels);
    free(slot->sample);
    free(slot->epoch);
    free(slot->bad);
}

static void stop_decoders(struct apd_loader *loader)
{
    if (loader->changed_ready) {
        pthread_mutex_lock(&loader->lock);
        loader->stop = 1;
        pthread_cond_broadcast(&loader->changed);
        pthread_mutex_unlock(&loader->lock);
    }
    for (int i = 0; i < loader->decoder_count; i++) {
        struct decoder *decoder = &loader->decoders[i];

        if (decoder->started)
            pthread_join(decoder->thread, NULL);
        apd_plan_destroy(&decoder->plan);
        apd_sampler_destroy(&decoder->sampler);
    }
}

void *apd_loader_pixels(const struct apd_loader *loader, uint32_t i, size_t *out_bytes)
{
    if (i >= loader->slot_count)
        return NULL;
    *out_bytes = (size_t)loader->rows * loader->image_bytes;
    return loader->slots[i].pixels;
}

void apd_loader_destroy(struct apd_loader **loader)
{
    struct apd_loader *dead = *loader;

    if (dead == NULL)
        return;
    stop_decoders(dead);
    if (dead->changed_ready)
        pthread_cond_destroy(&dead->changed);
    if (dead->lock_ready)
        pthread_mutex_destroy(&dead->lock);
    for (uint32_t i = 0; dead->slots != NULL && i < dead->slot_count; i++)
        free_slot(&dead->slots[i]);
    free(dead->slots);
    free(dead->decoders);
    free(dead);
    *loader = NULL;
}
