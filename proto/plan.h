/* The plan: which sample is trained when, where and in which branch. A pure function; no I/O.
 *
 *   global position  g = step * batch + j * lanes + lane        (j-th image of a lane's slice)
 *   epoch, position  e = g / N, p = g mod N
 *   stream           c = p mod lanes: a contiguous run of the epoch's shard order
 *   place in stream  i = p / lanes; inside windows of `window` samples the order is permuted
 *
 * So each lane reads one stream an epoch, (lane - e N) mod lanes; every sample comes once an epoch,
 * and batches run across the epoch's edge: nothing is padded, dropped or repeated. The first
 * `clean` images of a lane's slice are clean, the others auxiliary. With shuffle off, position p is
 * sample p.
 *
 * The order, exactly (key64(v) = v[0] | v[1] << 32; rng and permute are those of base/rng.h):
 *
 *   shard order   K = key64(apd_rng(seed, APD_RNG_PLAN_SHARDS, e, 0, 0));
 *                 the t-th shard of the epoch is apd_permute(K, S, t);
 *                 the epoch's line is their samples one after another, places 0 .. N - 1
 *   stream c      places [start, start + length), with q = N / V, r = N mod V:
 *                 start = c q + min(c, r), length = q + (c < r)
 *   window k      of stream c, k = i / window, covers its places [k window, k window + n),
 *                 n = min(window, length - k window)
 *                 L = key64(apd_rng(seed, APD_RNG_PLAN_WINDOW, e, c << 32 | k, 0))
 *   the sample    is the one at place start + k window + apd_permute(L, n, i mod window) */
#ifndef APD_PROTO_PLAN_H
#define APD_PROTO_PLAN_H

#include "base/err.h"
#include "base/hash.h"

#include <stdint.h>

#define APD_PLAN_VERSION 1

struct apd_plan_desc {
    uint64_t samples;              /* N > 0 */
    uint32_t shards;               /* S > 0 */
    const uint64_t *shard_samples; /* [S], sum N; copied */
    uint32_t lanes;                /* V > 0 */
    uint32_t lane_batch;           /* images a lane trains a step; lanes * lane_batch <= N */
    uint32_t window;               /* > 0 */
    uint64_t seed;
    int shuffle;
    char data_digest[APD_SHA256_HEX];
};

struct apd_plan;

/* APD_CONFIG if the batch is larger than the data set or a stream has 2^32 windows or more; APD_BUG
 * if the shards do not add up to the samples or a count is zero. */
APD_MUST_USE enum apd_code apd_plan_create(const struct apd_plan_desc *desc, struct apd_plan **out,
                                           struct apd_err *err);
void apd_plan_destroy(struct apd_plan **plan);

struct apd_place {
    uint64_t sample; /* 0 .. N - 1, in the order of the data set */
    uint32_t epoch;
    uint32_t shard;
    uint64_t position; /* p */
};

/* Not thread-safe: the shard order of the epochs last asked for is cached. */
void apd_plan_at(struct apd_plan *plan, uint64_t step, uint32_t lane, uint32_t index,
                 struct apd_place *out);

/* Shards that `lane` reads in `epoch`, each once, in the order in which its stream goes through
 * them (inside a window the samples of neighbouring shards mix): returns their number and writes at
 * most `cap` of them. *out_samples (may be NULL): samples of its stream in this epoch. */
uint32_t apd_plan_lane_shards(struct apd_plan *plan, uint32_t epoch, uint32_t lane, uint32_t cap,
                              uint32_t *out_shards, uint64_t *out_samples);

/* Lanes of worker w of W: [w V / W, (w + 1) V / W). W may not exceed V. */
void apd_plan_lanes_of(uint32_t lanes, uint32_t workers, uint32_t worker, uint32_t *out_first,
                       uint32_t *out_count);

/* Sum of apd_receipt(epoch, s) over all samples, mod 2^64. O(N). */
uint64_t apd_plan_receipt(const struct apd_plan *plan, uint32_t epoch);

/* SHA-256 of everything the order depends on, and APD_PLAN_VERSION (text in docs/data.md). */
APD_MUST_USE enum apd_code apd_plan_digest(const struct apd_plan *plan, char out[APD_SHA256_HEX],
                                           struct apd_err *err);

#endif
