/* The plan's arithmetic. What is kept: the shards' sizes and, for the two epochs last asked for,
 * the permuted order of the shards with its running sum; nothing per sample. */
#include "proto/plan.h"

#include "base/rng.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A batch touches at most two epochs, because it is not larger than the data set. */
enum { CACHED_EPOCHS = 2 };

struct epoch_order {
    int valid;
    uint32_t epoch;
    uint64_t last_use;
    uint32_t *shard; /* [S], t-th shard of the epoch */
    uint64_t *place; /* [S], place of its first sample on the epoch's line */
};

struct apd_plan {
    struct apd_plan_desc desc; /* shard_samples points to our copy */
    uint64_t *shard_samples;   /* [S] */
    uint64_t *shard_first;     /* [S], first sample of the shard */
    uint64_t use;
    struct epoch_order order[CACHED_EPOCHS];
};

/* Places [first, first + length) of an epoch's line: what one stream reads. */
struct stream {
    uint64_t first, length;
};

static uint64_t key64(uint64_t seed, enum apd_purpose purpose, uint32_t epoch, uint64_t id)
{
    struct apd_philox block = apd_rng(seed, purpose, epoch, id, 0);

    return block.v[0] | (uint64_t)block.v[1] << 32;
}

static struct stream stream_of(const struct apd_plan_desc *desc, uint32_t stream)
{
    uint64_t quotient = desc->samples / desc->lanes, rest = desc->samples % desc->lanes;

    return (struct stream){
        .first = stream * quotient + (stream < rest ? stream : rest),
        .length = quotient + (stream < rest),
    };
}

/* The stream that a lane reads in an epoch: (lane - epoch N) mod V. */
static uint32_t stream_of_lane(const struct apd_plan_desc *desc, uint32_t epoch, uint32_t lane)
{
    uint64_t back = desc->samples % desc->lanes * (epoch % desc->lanes) % desc->lanes;

    return (uint32_t)((lane + desc->lanes - back) % desc->lanes);
}

/* Index of the last of `count` ascending starts that is not above x; starts[0] is 0. Runs of equal
 * starts are empty shards and their follower: the follower is the one found. */
static uint32_t last_at_or_below(const uint64_t *starts, uint32_t count, uint64_t x)
{
    uint32_t low = 0, high = count;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;

        if (starts[middle] <= x)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void fill_order(const struct apd_plan *plan, uint32_t epoch, struct epoch_order *order)
{
    uint64_t key = key64(plan->desc.seed, APD_RNG_PLAN_SHARDS, epoch, 0);
    uint64_t place = 0;

    for (uint32_t t = 0; t < plan->desc.shards; t++) {
        uint32_t shard = (uint32_t)apd_permute(key, plan->desc.shards, t);

        order->shard[t] = shard;
        order->place[t] = place;
        place += plan->shard_samples[shard];
    }
    order->epoch = epoch;
    order->valid = 1;
}

static const struct epoch_order *order_of(struct apd_plan *plan, uint32_t epoch)
{
    struct epoch_order *order = &plan->order[0];

    for (int i = 0; i < CACHED_EPOCHS; i++) {
        if (plan->order[i].valid && plan->order[i].epoch == epoch) {
            order = &plan->order[i];
            break;
        }
        if (plan->order[i].last_use < order->last_use)
            order = &plan->order[i];
    }
    if (!order->valid || order->epoch != epoch)
        fill_order(plan, epoch, order);
    order->last_use = ++plan->use;
    return order;
}

/* The place on the epoch's line of the i-th sample that a stream reads. */
static uint64_t place_of(const struct apd_plan_desc *desc, uint32_t epoch, uint32_t stream,
                         uint64_t i)
{
    struct stream run = stream_of(desc, stream);
    uint64_t window = i / desc->window, first = window * desc->window;
    uint64_t size = run.length - first < desc->window ? run.length - first : desc->window;
    uint64_t key = key64(desc->seed, APD_RNG_PLAN_WINDOW, epoch, (uint64_t)stream << 32 | window);

    return run.first + first + apd_permute(key, size, i - first);
}

static enum apd_code check_desc(const struct apd_plan_desc *desc, struct apd_err *err)
{
    uint64_t sum = 0;

    if (desc->samples == 0 || desc->shards == 0 || desc->lanes == 0 || desc->lane_batch == 0 ||
        desc->window == 0)
        return apd_fail(err, APD_BUG,
                        "plan: %" PRIu64 " samples, %u shards, %u lanes of %u, window %u: expected "
                        "all above 0",
                        desc->samples, desc->shards, desc->lanes, desc->lane_batch, desc->window);
    for (uint32_t s = 0; s < desc->shards; s++) {
        if (desc->shard_samples[s] > desc->samples - sum)
            return apd_fail(err, APD_BUG,
                            "plan: the first %u shards hold more than the %" PRIu64 " samples",
                            s + 1, desc->samples);
        sum += desc->shard_samples[s];
    }
    if (sum != desc->samples)
        return apd_fail(err, APD_BUG,
                        "plan: the shards hold %" PRIu64 " samples, expected %" PRIu64, sum,
                        desc->samples);
    if ((uint64_t)desc->lanes * desc->lane_batch > desc->samples)
        return apd_fail(
            err, APD_CONFIG,
            "a batch of %" PRIu64 " images (%u lanes of %u) is larger than the data set "
            "of %" PRIu64,
            (uint64_t)desc->lanes * desc->lane_batch, desc->lanes, desc->lane_batch, desc->samples);
    if (desc->samples / desc->lanes / desc->window >= UINT32_MAX)
        return apd_fail(err, APD_CONFIG,
                        "data.window %u is too small for %" PRIu64 " samples on %u lanes: expected "
                        "fewer than 2^32 windows a lane",
                        desc->window, desc->samples, desc->lanes);
    return APD_OK;
}

static int allocate(struct apd_plan *plan)
{
    size_t shards = plan->desc.shards;

    plan->shard_samples = calloc(shards, sizeof *plan->shard_samples);
    plan->shard_first = calloc(shards, sizeof *plan->shard_first);
    if (plan->shard_samples == NULL || plan->shard_first == NULL)
        return 0;
    for (int i = 0; i < CACHED_EPOCHS; i++) {
        plan->order[i].shard = calloc(shards, sizeof *plan->order[i].shard);
        plan->order[i].place = calloc(shards, sizeof *plan->order[i].place);
        if (plan->order[i].shard == NULL || plan->order[i].place == NULL)
            return 0;
    }
    return 1;
}

enum apd_code apd_plan_create(const struct apd_plan_desc *desc, struct apd_plan **out,
                              struct apd_err *err)
{
    struct apd_plan *plan;
    uint64_t first = 0;

    APD_TRY(check_desc(desc, err));
    plan = calloc(1, sizeof *plan);
    if (plan != NULL)
        plan->desc = *desc;
    if (plan == NULL || !allocate(plan)) {
        apd_plan_destroy(&plan);
        return apd_fail(err, APD_NOMEM, "plan of %u shards", desc->shards);
    }
    for (uint32_t s = 0; s < desc->shards; s++) {
        plan->shard_samples[s] = desc->shard_samples[s];
        plan->shard_first[s] = first;
        first += desc->shard_samples[s];
    }
    plan->desc.shard_samples = plan->shard_samples;
    *out = plan;
    return APD_OK;
}

void apd_plan_destroy(struct apd_plan **plan)
{
    if (*plan == NULL)
        return;
    for (int i = 0; i < CACHED_EPOCHS; i++) {
        free((*plan)->order[i].shard);
        free((*plan)->order[i].place);
    }
    free((*plan)->shard_samples);
    free((*plan)->shard_first);
    free(*plan);
    *plan = NULL;
}

void apd_plan_at(struct apd_plan *plan, uint64_t step, uint32_t lane, uint32_t index,
                 struct apd_place *out)
{
    const struct apd_plan_desc *desc = &plan->desc;
    uint64_t global = (step * desc->lane_batch + index) * desc->lanes + lane;

    out->epoch = (uint32_t)(global / desc->samples);
    out->position = global % desc->samples;
    if (desc->shuffle) {
        const struct epoch_order *order = order_of(plan, out->epoch);
        uint64_t place = place_of(desc, out->epoch, (uint32_t)(out->position % desc->lanes),
                                  out->position / desc->lanes);
        uint32_t t = last_at_or_below(order->place, desc->shards, place);

        out->shard = order->shard[t];
        out->sample = plan->shard_first[out->shard] + (place - order->place[t]);
    } else {
        out->sample = out->position;
        out->shard = last_at_or_below(plan->shard_first, desc->shards, out->sample);
    }
}

/* Whether positions c, c + V, c + 2 V, ... come into [first, first + count). */
static int steps_into(uint64_t c, uint64_t lanes, uint64_t first, uint64_t count)
{
    uint64_t to_next = (c + lanes - first % lanes) % lanes;

    return to_next < count;
}

/* Whether two runs of places share one. */
static int overlap(struct stream a, struct stream b)
{
    return a.length > 0 && b.length > 0 && a.first < b.first + b.length &&
           b.first < a.first + a.length;
}

uint32_t apd_plan_lane_shards(struct apd_plan *plan, uint32_t epoch, uint32_t lane, uint32_t cap,
                              uint32_t *out_shards, uint64_t *out_samples)
{
    const struct apd_plan_desc *desc = &plan->desc;
    uint32_t stream = stream_of_lane(desc, epoch, lane);
    struct stream run = stream_of(desc, stream);
    const struct epoch_order *order = desc->shuffle ? order_of(plan, epoch) : NULL;
    uint32_t count = 0;

    for (uint32_t t = 0; t < desc->shards; t++) {
        uint32_t shard = order != NULL ? order->shard[t] : t;
        uint64_t samples = plan->shard_samples[shard];
        int reads = order != NULL
                        ? overlap(run, (struct stream){.first = order->place[t], .length = samples})
                        : steps_into(stream, desc->lanes, plan->shard_first[t], samples);

        if (!reads)
            continue;
        if (count < cap)
            out_shards[count] = shard;
        count++;
    }
    if (out_samples != NULL)
        *out_samples = run.length;
    return count;
}

void apd_plan_lanes_of(uint32_t lanes, uint32_t workers, uint32_t worker, uint32_t *out_first,
                       uint32_t *out_count)
{
    uint64_t first = (uint64_t)worker * lanes / workers;
    uint64_t end = ((uint64_t)worker + 1) * lanes / workers;

    *out_first = (uint32_t)first;
    *out_count = (uint32_t)(end - first);
}

uint64_t apd_plan_receipt(const struct apd_plan *plan, uint32_t epoch)
{
    uint64_t sum = 0;

    for (uint64_t s = 0; s < plan->desc.samples; s++)
        sum += apd_receipt(epoch, s);
    return sum;
}

enum apd_code apd_plan_digest(const struct apd_plan *plan, char out[APD_SHA256_HEX],
                              struct apd_err *err)
{
    const struct apd_plan_desc *desc = &plan->desc;
    struct apd_sha256 *hash = NULL;
    char text[512];
    enum apd_code rc;
    int n;

    APD_GO(apd_sha256_create(&hash, err));
    n = snprintf(text, sizeof text,
                 "advprop plan %d\nsamples %" PRIu64 "\nshards %u\nlanes %u\nlane_batch %u\n"
                 "window %u\nseed %" PRIu64 "\nshuffle %d\ndata %s\n",
                 APD_PLAN_VERSION, desc->samples, desc->shards, desc->lanes, desc->lane_batch,
                 desc->window, desc->seed, desc->shuffle != 0, desc->data_digest);
    APD_GO(apd_sha256_update(hash, text, (size_t)n, err));
    for (uint32_t s = 0; s < desc->shards; s++) {
        n = snprintf(text, sizeof text, "%" PRIu64 "\n", plan->shard_samples[s]);
        APD_GO(apd_sha256_update(hash, text, (size_t)n, err));
    }
    rc = apd_sha256_hex(hash, out, err);
done:
    apd_sha256_destroy(&hash);
    return rc;
}
