/* The plan: known values, every sample once, streams, shards, receipts, digest. */
#include "base/rng.h"
#include "proto/plan.h"
#include "tests/support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#define DATA_DIGEST "abababababababababababababababababababababababababababababababab"

/* A plan and what it was made from. */
struct world {
    struct apd_plan_desc desc;
    uint64_t *shard_samples;
    struct apd_plan *plan;
    uint64_t batch;
};

static struct world world_of(uint64_t samples, uint32_t shards, uint32_t lanes, uint32_t lane_batch,
                             uint32_t window, struct test_random *random)
{
    struct world world = {.batch = (uint64_t)lanes * lane_batch};
    uint64_t left = samples;
    struct apd_err err;

    world.shard_samples = calloc(shards, sizeof *world.shard_samples);
    assert_non_null(world.shard_samples);
    for (uint32_t s = 0; s < shards; s++) { /* from empty to twice the mean */
        uint64_t mean = left / (shards - s);
        uint64_t count = s == shards - 1 ? left : test_below(random, 2 * mean + 1);

        world.shard_samples[s] = count < left ? count : left;
        left -= world.shard_samples[s];
    }
    world.desc = (struct apd_plan_desc){
        .samples = samples,
        .shards = shards,
        .shard_samples = world.shard_samples,
        .lanes = lanes,
        .lane_batch = lane_batch,
        .window = window,
        .seed = test_next(random),
        .shuffle = 1,
        .data_digest = DATA_DIGEST,
    };
    assert_int_equal(apd_plan_create(&world.desc, &world.plan, &err), APD_OK);
    return world;
}

static void end_world(struct world *world)
{
    apd_plan_destroy(&world->plan);
    free(world->shard_samples);
}

/* What is trained at global position g. */
static struct apd_place at_global(const struct world *world, uint64_t g)
{
    uint64_t in_step = g % world->batch;
    struct apd_place place;

    apd_plan_at(world->plan, g / world->batch, (uint32_t)(in_step % world->desc.lanes),
                (uint32_t)(in_step / world->desc.lanes), &place);
    return place;
}

static void check_bijection(const struct world *world, uint32_t epoch)
{
    uint64_t samples = world->desc.samples;
    uint64_t *first = calloc(world->desc.shards, sizeof *first);
    unsigned char *seen = calloc(samples, 1);

    assert_non_null(first);
    assert_non_null(seen);
    for (uint32_t s = 1; s < world->desc.shards; s++)
        first[s] = first[s - 1] + world->shard_samples[s - 1];
    for (uint64_t p = 0; p < samples; p++) {
        struct apd_place place = at_global(world, epoch * samples + p);

        if (place.epoch != epoch || place.position != p || place.sample >= samples ||
            seen[place.sample]++ != 0)
            fail_msg("epoch %u position %" PRIu64 ": sample %" PRIu64 " twice or out of range",
                     epoch, p, place.sample);
        if (place.shard >= world->desc.shards || place.sample < first[place.shard] ||
            place.sample - first[place.shard] >= world->shard_samples[place.shard])
            fail_msg("sample %" PRIu64 " is not in shard %u", place.sample, place.shard);
    }
    free(seen);
    free(first);
}

static void known_plan_gives_known_places(void **state)
{
    /* Computed by an independent program from the words of plan.h. */
    static const struct {
        uint64_t step;
        struct apd_place place[6]; /* lane-major */
    } expected[] = {
        {0, {{0, 0, 0, 0}, {1, 0, 0, 3}, {6, 0, 1, 1}, {8, 0, 1, 4}, {15, 0, 3, 2}, {17, 0, 3, 5}}},
        {1,
         {{22, 0, 4, 6},
          {21, 0, 4, 9},
          {9, 0, 1, 7},
          {7, 0, 1, 10},
          {16, 0, 3, 8},
          {14, 0, 3, 11}}},
        {3,
         {{2, 0, 0, 18},
          {3, 0, 0, 21},
          {11, 0, 1, 19},
          {10, 0, 1, 22},
          {18, 0, 3, 20},
          {22, 1, 4, 0}}},
        {11,
         {{22, 2, 4, 20},
          {0, 3, 0, 0},
          {9, 2, 1, 21},
          {6, 3, 1, 1},
          {20, 2, 3, 22},
          {15, 3, 3, 2}}},
    };
    static const uint64_t shard_samples[] = {5, 9, 0, 7, 2};
    struct apd_plan_desc desc = {.samples = 23,
                                 .shards = 5,
                                 .shard_samples = shard_samples,
                                 .lanes = 3,
                                 .lane_batch = 2,
                                 .window = 4,
                                 .seed = 42,
                                 .shuffle = 1,
                                 .data_digest = DATA_DIGEST};
    struct apd_plan *plan;
    char digest[APD_SHA256_HEX];
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_plan_create(&desc, &plan, &err), APD_OK);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        for (uint32_t k = 0; k < 6; k++) {
            const struct apd_place *want = &expected[i].place[k];
            struct apd_place got;

            apd_plan_at(plan, expected[i].step, k / 2, k % 2, &got);
            assert_int_equal(got.sample, want->sample);
            assert_int_equal(got.epoch, want->epoch);
            assert_int_equal(got.shard, want->shard);
            assert_int_equal(got.position, want->position);
        }
    assert_int_equal(apd_plan_digest(plan, digest, &err), APD_OK);
    assert_string_equal(digest, "ffde22abaed908b7e76ac77ecec07d538fe65fff4c202f92e6dc07cb926ee6c5");
    apd_plan_destroy(&plan);
}

static void any_shape_gives_every_sample_once_an_epoch(void **state)
{
    static const struct {
        uint64_t samples;
        uint32_t shards, lanes, lane_batch, window;
    } shapes[] = {
        {1281167, 1282, 960, 2, 256},
        {1281167, 1282, 8, 32, 16384},
        {100003, 37, 240, 2, 64},
        {50021, 500, 10080, 2, 4},
        {1281167, 1282, 10240, 1, 64},
        {60000, 59, 8, 16, 1024},
        {1, 1, 1, 1, 1},
        {7, 3, 7, 1, 3},
        {7, 3, 1, 7, 100},
        {97, 200, 5, 3, 1},
        {97, 1, 13, 7, 1},
        {64, 64, 8, 8, 8},
        {65, 2, 8, 8, 8},
        {1000, 7, 1000, 1, 5},
        {1000, 7, 999, 1, 5},
    };
    struct test_random random = test_random_start();

    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct world world = world_of(shapes[i].samples, shapes[i].shards, shapes[i].lanes,
                                      shapes[i].lane_batch, shapes[i].window, &random);

        check_bijection(&world, 0);
        check_bijection(&world, shapes[i].samples > 100003 ? 1 : 100);
        end_world(&world);
    }
}

/* Workers come and go, steps are cut off in the middle and done again: only committed ones count.
 */
static void random_aborts_and_resizes_train_every_sample_once(void **state)
{
    enum { EPOCHS = 3 };
    struct test_random random = test_random_start();

    (void)state;
    for (int round = 0; round < 20; round++) {
        uint32_t lanes = 1 + (uint32_t)test_below(&random, 12);
        uint32_t lane_batch = 1 + (uint32_t)test_below(&random, 9);
        uint64_t samples = (uint64_t)lanes * lane_batch + test_below(&random, 3000);
        struct world world = world_of(samples, 1 + (uint32_t)test_below(&random, 40), lanes,
                                      lane_batch, 1 + (uint32_t)test_below(&random, 64), &random);
        uint64_t steps = (EPOCHS * samples + world.batch - 1) / world.batch;
        unsigned char *trained = calloc(EPOCHS + 1, samples);
        uint64_t sum[EPOCHS + 1] = {0};
        uint32_t workers = lanes;

        assert_non_null(trained);
        for (uint64_t step = 0; step < steps;) {
            int abort = test_below(&random, 10) == 0;
            uint32_t lanes_done = 0;

            if (test_below(&random, 10) == 0)
                workers = 1 + (uint32_t)test_below(&random, lanes);
            for (uint32_t w = 0; w < workers; w++) {
                uint32_t first, count;

                apd_plan_lanes_of(lanes, workers, w, &first, &count);
                assert_int_equal(first, lanes_done);
                assert_true(count > 0);
                lanes_done += count;
                for (uint32_t k = 0; k < count * lane_batch; k++) {
                    struct apd_place place;

                    apd_plan_at(world.plan, step, first + k / lane_batch, k % lane_batch, &place);
                    if (abort) /* read, but never committed */
                        continue;
                    trained[place.epoch * samples + place.sample]++;
                    sum[place.epoch] += apd_receipt(place.epoch, place.sample);
                }
            }
            assert_int_equal(lanes_done, lanes);
            step += !abort;
        }
        for (uint64_t i = 0; i < EPOCHS * samples; i++)
            assert_int_equal(trained[i], 1);
        for (uint32_t epoch = 0; epoch < EPOCHS; epoch++)
            assert_true(sum[epoch] == apd_plan_receipt(world.plan, epoch));
        free(trained);
        end_world(&world);
    }
}

static void no_shuffle_trains_sample_p_at_position_p(void **state)
{
    struct test_random random = test_random_start();
    struct world world = world_of(1000, 9, 6, 5, 16, &random);
    struct apd_plan *plan;
    struct apd_err err;

    (void)state;
    world.desc.shuffle = 0;
    assert_int_equal(apd_plan_create(&world.desc, &plan, &err), APD_OK);
    apd_plan_destroy(&world.plan);
    world.plan = plan;
    check_bijection(&world, 0);
    check_bijection(&world, 2);
    for (uint64_t g = 0; g < 3000; g++) {
        struct apd_place place = at_global(&world, g);

        assert_int_equal(place.sample, g % 1000);
        assert_int_equal(place.epoch, g / 1000);
    }
    end_world(&world);
}

/* The shards that apd_plan_at reads for a lane in an epoch, in the order of their first sample. */
static uint32_t touched_shards(const struct world *world, uint32_t epoch, uint32_t lane,
                               uint32_t *order, uint64_t *out_samples)
{
    unsigned char *seen = calloc(world->desc.shards, 1);
    uint64_t first = epoch * world->desc.samples, end = first + world->desc.samples;
    uint32_t count = 0;

    assert_non_null(seen);
    *out_samples = 0;
    for (uint64_t g =
             first + (lane + world->desc.lanes - first % world->desc.lanes) % world->desc.lanes;
         g < end; g += world->desc.lanes) {
        struct apd_place place = at_global(world, g);

        ++*out_samples;
        if (!seen[place.shard])
            order[count++] = place.shard;
        seen[place.shard] = 1;
    }
    free(seen);
    return count;
}

static int contains(const uint32_t *list, uint32_t count, uint32_t value)
{
    for (uint32_t i = 0; i < count; i++)
        if (list[i] == value)
            return 1;
    return 0;
}

static void lane_shards_are_those_the_lane_reads(void **state)
{
    struct test_random random = test_random_start();

    (void)state;
    for (int round = 0; round < 40; round++) {
        uint32_t lanes = 1 + (uint32_t)test_below(&random, 11);
        uint32_t shards = 1 + (uint32_t)test_below(&random, 30);
        uint32_t window = round % 2 == 0 ? 1 : 1 + (uint32_t)test_below(&random, 50);
        struct world world =
            world_of(lanes + test_below(&random, 700), shards, lanes, 1, window, &random);
        uint32_t got[32], want[32];

        for (int shuffle = 0; shuffle <= 1; shuffle++) {
            struct apd_err err;

            apd_plan_destroy(&world.plan);
            world.desc.shuffle = shuffle;
            assert_int_equal(apd_plan_create(&world.desc, &world.plan, &err), APD_OK);
            for (uint32_t epoch = 0; epoch < 4; epoch++)
                for (uint32_t lane = 0; lane < lanes; lane++) {
                    uint64_t samples, expected_samples;
                    uint32_t n = touched_shards(&world, epoch, lane, want, &expected_samples);

                    assert_int_equal(
                        apd_plan_lane_shards(world.plan, epoch, lane, 32, got, &samples), n);
                    assert_int_equal(samples, expected_samples);
                    if (window == 1 || !shuffle)
                        assert_memory_equal(got, want, n * sizeof *got);
                    for (uint32_t i = 0; i < n; i++)
                        assert_true(contains(want, n, got[i]));
                }
        }
        end_world(&world);
    }
}

static void lane_shards_write_no_more_than_the_cap(void **state)
{
    struct test_random random = test_random_start();
    struct world world = world_of(1000, 50, 1, 1, 8, &random);
    uint32_t all[50], few[3] = {77, 77, 77};
    uint32_t n = apd_plan_lane_shards(world.plan, 5, 0, 50, all, NULL);

    (void)state;
    assert_int_equal(apd_plan_lane_shards(world.plan, 5, 0, 2, few, NULL), n);
    assert_int_equal(few[0], all[0]);
    assert_int_equal(few[1], all[1]);
    assert_int_equal(few[2], 77);
    assert_int_equal(apd_plan_lane_shards(world.plan, 5, 0, 0, NULL, NULL), n);
    end_world(&world);
}

/* One stream an epoch covers its shards in a row: S / V shards and the two at its ends. */
static void a_lane_reads_few_shards_an_epoch(void **state)
{
    struct test_random random = test_random_start();
    struct world world = world_of(60000, 60, 8, 16, 1024, &random);

    (void)state;
    for (uint32_t lane = 0; lane < 8; lane++) {
        uint32_t shards[60], n = apd_plan_lane_shards(world.plan, 3, lane, 60, shards, NULL);
        uint64_t inner = 0;

        for (uint32_t i = 1; i + 1 < n; i++)
            inner += world.shard_samples[shards[i]];
        assert_true(inner <= 60000 / 8 + 1);
    }
    end_world(&world);
}

static void epochs_and_seeds_give_other_orders(void **state)
{
    struct test_random random = test_random_start();
    struct world a = world_of(4096, 4, 4, 4, 512, &random), b = a;
    uint64_t same_epoch = 0, same_seed = 0;
    struct apd_err err;

    (void)state;
    b.desc.seed++;
    assert_int_equal(apd_plan_create(&b.desc, &b.plan, &err), APD_OK);
    for (uint64_t p = 0; p < 4096; p++) {
        uint64_t sample = at_global(&a, p).sample;

        same_epoch += sample == at_global(&a, 4096 + p).sample;
        same_seed += sample == at_global(&b, p).sample;
    }
    /* About one of a window in four is expected by chance; 4096 would be the same order. */
    assert_true(same_epoch < 100);
    assert_true(same_seed < 100);
    apd_plan_destroy(&b.plan);
    end_world(&a);
}

/* The plan caches two epochs; asking for them in any order must not matter. */
static void places_do_not_depend_on_what_was_asked_before(void **state)
{
    struct test_random random = test_random_start();
    struct world a = world_of(500, 20, 4, 3, 16, &random), b = a;
    struct apd_err err;

    (void)state;
    for (int i = 0; i < 300; i++) {
        uint64_t g = test_below(&random, 500 * 6);
        struct apd_place warm = at_global(&a, g), cold;

        assert_int_equal(apd_plan_create(&b.desc, &b.plan, &err), APD_OK);
        cold = at_global(&b, g);
        apd_plan_destroy(&b.plan);
        assert_int_equal(warm.sample, cold.sample);
        assert_int_equal(warm.shard, cold.shard);
    }
    end_world(&a);
}

static void digest_of(const struct apd_plan_desc *desc, char out[APD_SHA256_HEX])
{
    struct apd_plan *plan;
    struct apd_err err;

    assert_int_equal(apd_plan_create(desc, &plan, &err), APD_OK);
    assert_int_equal(apd_plan_digest(plan, out, &err), APD_OK);
    apd_plan_destroy(&plan);
}

static void digest_changes_with_every_input(void **state)
{
    static const uint64_t shards_a[] = {30, 70}, shards_b[] = {31, 69}, shards_c[] = {30, 69, 1},
                          shards_d[] = {30, 71};
    const struct apd_plan_desc base = {.samples = 100,
                                       .shards = 2,
                                       .shard_samples = shards_a,
                                       .lanes = 4,
                                       .lane_batch = 5,
                                       .window = 8,
                                       .seed = 1,
                                       .shuffle = 1,
                                       .data_digest = DATA_DIGEST};
    struct apd_plan_desc other[9];
    char digests[10][APD_SHA256_HEX];

    (void)state;
    for (int i = 0; i < 9; i++)
        other[i] = base;
    other[0].shard_samples = shards_b;
    other[1].shard_samples = shards_c;
    other[1].shards = 3;
    other[2].shard_samples = shards_d;
    other[2].samples = 101;
    other[3].lanes = 5;
    other[4].lane_batch = 4;
    other[5].window = 9;
    other[6].seed = 2;
    other[7].shuffle = 0;
    other[8].data_digest[63] = 'c';
    digest_of(&base, digests[9]);
    for (int i = 0; i < 9; i++) {
        digest_of(&other[i], digests[i]);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(digests[i], digests[j]);
        assert_string_not_equal(digests[i], digests[9]);
    }
    digest_of(&base, digests[0]);
    assert_string_equal(digests[0], digests[9]);
}

static void impossible_plans_are_refused(void **state)
{
    static const uint64_t shard_samples[] = {30, 70};
    const struct apd_plan_desc base = {.samples = 100,
                                       .shards = 2,
                                       .shard_samples = shard_samples,
                                       .lanes = 4,
                                       .lane_batch = 25,
                                       .window = 8};
    struct apd_plan_desc desc = base;
    struct apd_plan *plan = NULL;
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_plan_create(&desc, &plan, &err), APD_OK); /* batch = data set */
    apd_plan_destroy(&plan);
    desc.lane_batch = 26;
    assert_int_equal(apd_plan_create(&desc, &plan, &err), APD_CONFIG);
    assert_non_null(strstr(err.msg, "104"));
    assert_non_null(strstr(err.msg, "100"));
    desc = base;
    desc.samples = 99;
    assert_int_equal(apd_plan_create(&desc, &plan, &err), APD_BUG);
    desc.samples = 101;
    assert_int_equal(apd_plan_create(&desc, &plan, &err), APD_BUG);
    desc = base;
    desc.window = 0;
    assert_int_equal(apd_plan_create(&desc, &plan, &err), APD_BUG);
    desc = base;
    desc.lanes = desc.lane_batch = UINT32_MAX; /* must not wrap around */
    assert_int_equal(apd_plan_create(&desc, &plan, &err), APD_CONFIG);
    assert_null(plan);
    apd_plan_destroy(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_plan_gives_known_places),
        cmocka_unit_test(any_shape_gives_every_sample_once_an_epoch),
        cmocka_unit_test(random_aborts_and_resizes_train_every_sample_once),
        cmocka_unit_test(no_shuffle_trains_sample_p_at_position_p),
        cmocka_unit_test(lane_shards_are_those_the_lane_reads),
        cmocka_unit_test(lane_shards_write_no_more_than_the_cap),
        cmocka_unit_test(a_lane_reads_few_shards_an_epoch),
        cmocka_unit_test(epochs_and_seeds_give_other_orders),
        cmocka_unit_test(places_do_not_depend_on_what_was_asked_before),
        cmocka_unit_test(digest_changes_with_every_input),
        cmocka_unit_test(impossible_plans_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
