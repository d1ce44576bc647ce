/* The loader over a data set made of arithmetic: what it delivers, in which order, and how it ends.
 */
#include "tests/support/random.h"
#include "worker/data/augment.h"
#include "worker/data/loader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum {
    SAMPLES = 997,
    C = 2,
    H = 5,
    W = 4,
    BYTES = C * H * W,
    LANES = 4,
    LANE_BATCH = 6,
    SLOTS = 3
};

/* The data set's switches; one test at a time uses them. */
static struct {
    _Atomic uint64_t bad_sample;    /* cannot be used */
    _Atomic uint64_t broken_sample; /* cannot be read for a reason that is not its own */
    _Atomic uint64_t reads, reads_allowed;
    _Atomic int too_many, wrong_thread;
    pthread_mutex_t lock;
    pthread_cond_t opened;
    int closed; /* reads wait while set */
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER};

static void set_gate(int closed)
{
    pthread_mutex_lock(&gate.lock);
    gate.closed = closed;
    pthread_cond_broadcast(&gate.opened);
    pthread_mutex_unlock(&gate.lock);
}

static uint8_t pixel_of(uint64_t sample, int i)
{
    return (uint8_t)(sample * 31 + (uint64_t)i * 7);
}

static enum apd_code fetch(const struct apd_dataset *dataset, uint64_t sample,
                           struct apd_buffer *buffer, struct apd_stored *out, struct apd_err *err)
{
    char name[16] = "";

    (void)dataset;
    (void)prctl(PR_GET_NAME, name);
    if (strcmp(name, "decode") != 0)
        gate.wrong_thread = 1;
    if (++gate.reads > gate.reads_allowed)
        gate.too_many = 1;
    pthread_mutex_lock(&gate.lock);
    while (gate.closed)
        pthread_cond_wait(&gate.opened, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
    if (sample == gate.bad_sample)
        return apd_fail(err, APD_DATA, "file.tar: damaged at offset 17");
    if (sample == gate.broken_sample)
        return apd_fail(err, APD_IO, "file.tar: the disk is gone");
    if (buffer->bytes == NULL)
        buffer->bytes = malloc(BYTES);
    for (int i = 0; i < BYTES; i++)
        buffer->bytes[i] = pixel_of(sample, i);
    *out = (struct apd_stored){buffer->bytes, BYTES, (int32_t)(sample % 10), "file.tar"};
    return APD_OK;
}

static void close_nothing(struct apd_dataset *dataset)
{
    (void)dataset;
}

static const struct apd_dataset_ops ops = {
    .format = "arithmetic", .fetch = fetch, .close = close_nothing};
static uint64_t shard_samples[] = {300, 400, 297};
static const struct apd_dataset dataset = {.ops = &ops,
                                           .samples = SAMPLES,
                                           .classes = 10,
                                           .c = C,
                                           .h = H,
                                           .w = W,
                                           .shards = 3,
                                           .shard_samples = shard_samples};
static const struct apd_plan_desc plan_desc = {.samples = SAMPLES,
                                               .shards = 3,
                                               .shard_samples = shard_samples,
                                               .lanes = LANES,
                                               .lane_batch = LANE_BATCH,
                                               .window = 32,
                                               .seed = 7,
                                               .shuffle = 1};

/* What the sampler below does to an image. */
static const struct apd_augment_settings crop_flip = {APD_AUGMENT_CROP_FLIP, 2, 7};

static struct apd_loader_settings settings_of(uint32_t lane_first, uint32_t lane_count,
                                              uint64_t first_step)
{
    return (struct apd_loader_settings){
        .plan = &plan_desc,
        .dataset = &dataset,
        .sampler = {.train = 1,
                    .recipe = {.crop = APD_CROP_PADDED, .crop_padding_px = 2, .seed = 7}},
        .threads = 1,
        .slots = SLOTS,
        .lane_first = lane_first,
        .lane_count = lane_count,
        .first_step = first_step,
        .wait_timeout_ms = 60000,
    };
}

static struct apd_loader *loader_of(struct apd_loader_settings settings)
{
    struct apd_loader *loader = NULL;
    struct apd_err err;

    if (apd_loader_create(&settings, &loader, &err) != APD_OK)
        fail_msg("%s", err.msg);
    return loader;
}

static const struct apd_step_data *step_of(struct apd_loader *loader, uint64_t step)
{
    const struct apd_step_data *data = NULL;
    struct apd_err err;

    if (apd_loader_step(loader, step, &data, NULL, &err) != APD_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(data->step, step);
    return data;
}

static int reset(void **state)
{
    (void)state;
    gate.bad_sample = gate.broken_sample = UINT64_MAX;
    gate.reads = 0;
    gate.reads_allowed = UINT64_MAX;
    gate.too_many = gate.wrong_thread = 0;
    gate.closed = 0;
    return 0;
}

static void steps_follow_the_plan(void **state)
{
    struct apd_loader_settings settings = settings_of(1, 2, 0);
    struct apd_loader *loader = loader_of(settings);
    struct apd_plan *plan;
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_plan_create(&plan_desc, &plan, &err), APD_OK);
    for (uint64_t step = 0; step < 100; step++) { /* more than two epochs */
        const struct apd_step_data *data = step_of(loader, step);

        assert_int_equal(data->lane_first, 1);
        assert_int_equal(data->lane_count, 2);
        assert_int_equal(data->lane_batch, LANE_BATCH);
        for (uint32_t row = 0; row < 2 * LANE_BATCH; row++) {
            struct apd_augment_choice choice;
            struct apd_place place;
            uint8_t plain[BYTES], expected[BYTES];

            apd_plan_at(plan, step, 1 + row / LANE_BATCH, row % LANE_BATCH, &place);
            assert_int_equal(data->sample[row], place.sample);
            assert_int_equal(data->epoch[row], place.epoch);
            assert_int_equal(data->labels[row], place.sample % 10);
            for (int i = 0; i < BYTES; i++)
                plain[i] = pixel_of(place.sample, i);
            choice = apd_augment_choose(&crop_flip, place.epoch, place.sample);
            apd_augment_apply(choice, C, H, W, plain, expected);
            assert_memory_equal(data->pixels + row * BYTES, expected, BYTES);
        }
    }
    assert_int_equal(gate.wrong_thread, 0);
    apd_plan_destroy(&plan);
    apd_loader_destroy(&loader);
    assert_null(loader);
    apd_loader_destroy(&loader);
}

/* Rows of one step as one worker with all lanes has them, against the same from W workers. */
static void split_over_workers_gives_the_same_rows(void **state)
{
    static const uint32_t worker_counts[] = {2, 3, 4};

    (void)state;
    for (size_t k = 0; k < sizeof worker_counts / sizeof *worker_counts; k++) {
        uint32_t workers = worker_counts[k];
        struct apd_loader *all = loader_of(settings_of(0, LANES, 3)), *part[LANES] = {NULL};

        for (uint32_t w = 0; w < workers; w++) {
            uint32_t first, count;

            apd_plan_lanes_of(LANES, workers, w, &first, &count);
            part[w] = loader_of(settings_of(first, count, 3));
        }
        for (uint64_t step = 3; step < 60; step++) {
            const struct apd_step_data *whole = step_of(all, step);

            for (uint32_t w = 0; w < workers; w++) {
                const struct apd_step_data *own = step_of(part[w], step);
                size_t from = (size_t)own->lane_first * LANE_BATCH;
                size_t rows = (size_t)own->lane_count * LANE_BATCH;

                assert_memory_equal(own->pixels, whole->pixels + from * BYTES, rows * BYTES);
                assert_memory_equal(own->labels, whole->labels + from, rows * 4);
                assert_memory_equal(own->sample, whole->sample + from, rows * 8);
                assert_memory_equal(own->epoch, whole->epoch + from, rows * 4);
            }
        }
        for (uint32_t w = 0; w < workers; w++)
            apd_loader_destroy(&part[w]);
        apd_loader_destroy(&all);
    }
}

static void late_start_gives_the_same_rows(void **state)
{
    struct apd_loader *from_0 = loader_of(settings_of(0, LANES, 0)),
                      *from_50 = loader_of(settings_of(0, LANES, 50));

    (void)state;
    for (uint64_t step = 0; step < 50; step++)
        (void)step_of(from_0, step);
    for (uint64_t step = 50; step < 60; step++)
        assert_memory_equal(step_of(from_0, step)->pixels, step_of(from_50, step)->pixels,
                            (size_t)LANES * LANE_BATCH * BYTES);
    apd_loader_destroy(&from_0);
    apd_loader_destroy(&from_50);
}

static void same_step_again_gives_the_same_memory(void **state)
{
    struct apd_loader *loader = loader_of(settings_of(0, 1, 5));
    const struct apd_step_data *data = step_of(loader, 5);
    struct apd_err err;

    (void)state;
    assert_ptr_equal(step_of(loader, 5), data);
    assert_int_equal(apd_loader_step(loader, 7, &data, NULL, &err), APD_BUG);
    assert_int_equal(apd_loader_step(loader, 4, &data, NULL, &err), APD_BUG);
    (void)step_of(loader, 6);
    assert_int_equal(apd_loader_step(loader, 5, &data, NULL, &err), APD_BUG);
    apd_loader_destroy(&loader);
}

/* A GPU's driver pins whole pages, and each once. */
static void no_two_slots_share_a_page(void **state)
{
    struct apd_loader *loader = loader_of(settings_of(0, LANES, 0));
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    size_t bytes;
    uint32_t i = 0;

    (void)state;
    for (void *pixels; (pixels = apd_loader_pixels(loader, i, &bytes)) != NULL; i++) {
        assert_int_equal((uintptr_t)pixels % page, 0);
        assert_int_equal(bytes, LANES * LANE_BATCH * BYTES);
    }
    assert_int_equal(i, SLOTS);
    apd_loader_destroy(&loader);
}

static void the_next_step_is_given_once_complete_and_not_waited_for(void **state)
{
    const struct apd_step_data *data, *next;
    uint8_t before[LANE_BATCH * BYTES];
    struct apd_loader *loader;

    (void)state;
    set_gate(1);
    loader = loader_of(settings_of(0, 1, 5));
    assert_null(apd_loader_next(loader));
    set_gate(0);
    data = step_of(loader, 5);
    memcpy(before, data->pixels, sizeof before);
    while ((next = apd_loader_next(loader)) == NULL)
        ;
    assert_int_equal(next->step, 6);
    assert_int_equal(data->step, 5);
    assert_memory_equal(data->pixels, before, sizeof before);
    assert_ptr_equal(step_of(loader, 6), next);
    apd_loader_destroy(&loader);
}

/* The one step thread holds and the two behind it: no sample beyond them is read. */
static void reads_no_more_than_the_ring_holds(void **state)
{
    struct apd_loader *loader;

    (void)state;
    gate.reads_allowed = SLOTS * LANE_BATCH;
    loader = loader_of(settings_of(2, 1, 0));
    for (uint64_t step = 0; step < 200; step++) {
        gate.reads_allowed = (step + SLOTS) * LANE_BATCH;
        (void)step_of(loader, step);
    }
    apd_loader_destroy(&loader);
    assert_int_equal(gate.too_many, 0);
    assert_true(gate.reads >= 200 * LANE_BATCH);
}

static void bad_sample_is_a_grey_row_without_a_label(void **state)
{
    struct apd_loader *loader;
    struct apd_plan *plan;
    struct apd_place place;
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_plan_create(&plan_desc, &plan, &err), APD_OK);
    apd_plan_at(plan, 9, 1, 4, &place); /* step 9 is in the first epoch: read once until then */
    gate.bad_sample = place.sample;
    loader = loader_of(settings_of(0, 2, 0));
    for (uint64_t step = 0; step < 20; step++) {
        const struct apd_step_data *data = step_of(loader, step);

        assert_int_equal(data->bad_count, step == 9);
        if (step != 9)
            continue;
        assert_int_equal(data->bad[0].row, LANE_BATCH + 4);
        assert_string_equal(data->bad[0].reason, "file.tar: damaged at offset 17");
        assert_int_equal(data->labels[LANE_BATCH + 4], -1);
        assert_int_equal(data->sample[LANE_BATCH + 4], place.sample);
        for (int i = 0; i < BYTES; i++)
            assert_int_equal(data->pixels[(LANE_BATCH + 4) * BYTES + i], 128);
        assert_true(data->labels[LANE_BATCH + 3] >= 0);
    }
    apd_loader_destroy(&loader);
    apd_plan_destroy(&plan);
}

static void broken_disk_is_told_by_its_step_and_by_no_earlier(void **state)
{
    const struct apd_step_data *data = NULL;
    struct apd_plan *plan;
    struct apd_place place;
    struct apd_err err;
    char named[128];

    (void)state;
    assert_int_equal(apd_plan_create(&plan_desc, &plan, &err), APD_OK);
    apd_plan_at(plan, 9, 1, 4, &place);
    gate.broken_sample = place.sample;
    for (int threads = 1; threads <= 4; threads += 3) {
        struct apd_loader_settings settings = settings_of(0, 2, 0);
        struct apd_loader *loader;

        settings.threads = threads;
        loader = loader_of(settings);
        for (uint64_t step = 0; step < 9; step++)
            (void)step_of(loader, step);
        assert_null(apd_loader_next(loader));
        for (int again = 0; again < 2; again++) {
            assert_int_equal(apd_loader_step(loader, 9, &data, NULL, &err), APD_IO);
            (void)snprintf(named, sizeof named,
                           "step 9, lane 1, epoch 0, sample %" PRIu64 ": file.tar", place.sample);
            assert_non_null(strstr(err.msg, named));
        }
        assert_int_equal(apd_loader_step(loader, 10, &data, NULL, &err), APD_IO);
        assert_null(data);
        apd_loader_destroy(&loader);
    }
    apd_plan_destroy(&plan);
}

static void threads_give_the_same_rows(void **state)
{
    struct apd_loader_settings settings = settings_of(0, LANES, 0);
    struct apd_loader *one = loader_of(settings), *many;

    (void)state;
    settings.threads = 5;
    settings.slots = 7;
    many = loader_of(settings);
    for (uint64_t step = 0; step < 300; step++) {
        const struct apd_step_data *a = step_of(one, step), *b = step_of(many, step);
        size_t rows = LANES * LANE_BATCH;

        assert_memory_equal(a->pixels, b->pixels, rows * BYTES);
        assert_memory_equal(a->labels, b->labels, rows * 4);
        assert_memory_equal(a->sample, b->sample, rows * 8);
    }
    apd_loader_destroy(&one);
    apd_loader_destroy(&many);
}

static void open_when_told(void *ctx, const char *text)
{
    _Atomic int *told = ctx;

    if (strncmp(text, "shard ", 6) == 0 && strstr(text, ", sample ") != NULL)
        *told = 1;
    set_gate(0);
}

static void long_wait_tells_what_for(void **state)
{
    struct apd_loader_settings settings = settings_of(0, 1, 0);
    struct apd_loader *loader;
    _Atomic int told = 0;

    (void)state;
    set_gate(1);
    settings.on_wait = open_when_told;
    settings.ctx = &told;
    loader = loader_of(settings);
    (void)step_of(loader, 0);
    assert_int_equal(told, 1);
    apd_loader_destroy(&loader);
}

static void slow_data_is_a_timeout_and_then_comes(void **state)
{
    struct apd_loader_settings settings = settings_of(0, 1, 0);
    const struct apd_step_data *data = NULL;
    struct apd_loader *loader;
    struct apd_err err;
    double wait_ms = -1;

    (void)state;
    set_gate(1);
    settings.wait_timeout_ms = 20;
    loader = loader_of(settings);
    assert_int_equal(apd_loader_step(loader, 0, &data, &wait_ms, &err), APD_TIMEOUT);
    assert_non_null(strstr(err.msg, "step 0"));
    assert_true(wait_ms == -1);
    set_gate(0);
    while (apd_loader_step(loader, 0, &data, &wait_ms, &err) == APD_TIMEOUT)
        ;
    assert_non_null(data);
    assert_true(wait_ms >= 0);
    apd_loader_destroy(&loader);
}

static void destroy_at_any_moment_joins_and_frees(void **state)
{
    struct test_random random = test_random_start();

    (void)state;
    for (int round = 0; round < 200; round++) {
        struct apd_loader *loader = loader_of(settings_of(0, LANES, test_below(&random, 1000)));
        uint64_t steps = test_below(&random, 5), first = 0;
        const struct apd_step_data *data;
        struct apd_err err;

        apd_loader_destroy(&loader);
        first = test_below(&random, 1000);
        loader = loader_of(settings_of(1, 2, first));
        for (uint64_t i = 0; i < steps; i++)
            assert_int_equal(apd_loader_step(loader, first + i, &data, NULL, &err), APD_OK);
        apd_loader_destroy(&loader);
    }
}

static void *open_gate(void *argument)
{
    (void)argument;
    set_gate(0);
    return NULL;
}

/* The decode thread is inside a read when destroy is called: it ends after that read, not after the
 * step. */
static void destroy_waits_for_the_read_in_flight_only(void **state)
{
    struct apd_loader *loader;
    pthread_t opener;

    (void)state;
    set_gate(1);
    loader = loader_of(settings_of(0, LANES, 0));
    while (gate.reads == 0)
        ;
    assert_int_equal(pthread_create(&opener, NULL, open_gate, NULL), 0);
    apd_loader_destroy(&loader);
    assert_int_equal(pthread_join(opener, NULL), 0);
    assert_true(gate.reads <= LANES * LANE_BATCH * SLOTS);
}

static void what_does_not_fit_is_refused(void **state)
{
    struct apd_loader_settings settings = settings_of(0, 1, 0);
    struct apd_plan_desc desc = plan_desc;
    struct apd_loader *loader = NULL;
    struct apd_err err;

    (void)state;
    settings.lane_count = 0;
    assert_int_equal(apd_loader_create(&settings, &loader, &err), APD_BUG);
    settings = settings_of(3, 2, 0);
    assert_int_equal(apd_loader_create(&settings, &loader, &err), APD_BUG);
    settings = settings_of(0, 1, 0);
    desc.samples--;
    settings.plan = &desc;
    assert_int_equal(apd_loader_create(&settings, &loader, &err), APD_BUG);
    desc = plan_desc;
    desc.lane_batch = SAMPLES;
    assert_int_equal(apd_loader_create(&settings, &loader, &err), APD_CONFIG);
    assert_null(loader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(steps_follow_the_plan, reset),
        cmocka_unit_test_setup(split_over_workers_gives_the_same_rows, reset),
        cmocka_unit_test_setup(late_start_gives_the_same_rows, reset),
        cmocka_unit_test_setup(same_step_again_gives_the_same_memory, reset),
        cmocka_unit_test_setup(no_two_slots_share_a_page, reset),
        cmocka_unit_test_setup(the_next_step_is_given_once_complete_and_not_waited_for, reset),
        cmocka_unit_test_setup(reads_no_more_than_the_ring_holds, reset),
        cmocka_unit_test_setup(bad_sample_is_a_grey_row_without_a_label, reset),
        cmocka_unit_test_setup(broken_disk_is_told_by_its_step_and_by_no_earlier, reset),
        cmocka_unit_test_setup(threads_give_the_same_rows, reset),
        cmocka_unit_test_setup(long_wait_tells_what_for, reset),
        cmocka_unit_test_setup(slow_data_is_a_timeout_and_then_comes, reset),
        cmocka_unit_test_setup(destroy_at_any_moment_joins_and_frees, reset),
        cmocka_unit_test_setup(destroy_waits_for_the_read_in_flight_only, reset),
        cmocka_unit_test_setup(what_does_not_fit_is_refused, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
