/* See roster.h. */
#include "daemon/roster.h"

#include "proto/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum apd_code apd_roster_init(struct apd_roster *roster, uint32_t workers,
                              const char *config_digest, struct apd_err *err)
{
    *roster = (struct apd_roster){.count = workers};
    roster->worker = calloc(workers, sizeof *roster->worker);
    if (roster->worker == NULL)
        return apd_fail(err, APD_NOMEM, "a roster of %u workers", workers);
    (void)snprintf(roster->facts.config_digest, sizeof roster->facts.config_digest, "%s",
                   config_digest);
    return APD_OK;
}

void apd_roster_fini(struct apd_roster *roster)
{
    free(roster->worker);
    free(roster->facts.layout);
    free(roster->facts.shard_samples);
    *roster = (struct apd_roster){0};
}

static enum apd_code check_rank(const struct apd_roster *roster, const Advprop__V1__Join *join,
                                struct apd_err *err)
{
    const struct apd_worker *there;

    if (join->workers != roster->count)
        return apd_fail(err, APD_CONFIG, "rank %u on %s: expected %u workers, it sees %u",
                        join->rank, join->host, roster->count, join->workers);
    if (join->rank < 1 || join->rank > roster->count)
        return apd_fail(err, APD_CONFIG, "rank %u on %s: expected a rank of 1 to %u", join->rank,
                        join->host, roster->count);
    there = &roster->worker[join->rank - 1];
    if (there->joined)
        return apd_fail(err, APD_PROTO, "rank %u on %s, pid %u: rank %u has joined from %s, pid %u",
                        join->rank, join->host, join->pid, join->rank, there->host, there->pid);
    return APD_OK;
}

static enum apd_code check_shards(const Advprop__V1__Join *join, struct apd_err *err)
{
    uint64_t sum = 0;

    if (join->n_shard_samples == 0)
        return apd_fail(err, APD_CONFIG, "rank %u on %s: a data set without shards", join->rank,
                        join->host);
    for (size_t i = 0; i < join->n_shard_samples; i++)
        if (__builtin_add_overflow(sum, join->shard_samples[i], &sum))
            return apd_fail(err, APD_CONFIG, "rank %u on %s: shard %zu of %" PRIu64 " samples",
                            join->rank, join->host, i, join->shard_samples[i]);
    if (sum != join->samples)
        return apd_fail(err, APD_CONFIG,
                        "rank %u on %s: its shards have %" PRIu64 " samples, its data set %" PRIu64,
                        join->rank, join->host, sum, join->samples);
    return APD_OK;
}

/* Things that need no other worker to compare with. */
static enum apd_code check_alone(const struct apd_roster *roster, const Advprop__V1__Join *join,
                                 struct apd_err *err)
{
    if (join->plan_version != APD_PLAN_VERSION)
        return apd_fail(err, APD_CONFIG, "rank %u on %s: plan version: expected %u, found %u",
                        join->rank, join->host, APD_PLAN_VERSION, join->plan_version);
    if (strcmp(join->config_digest, roster->facts.config_digest) != 0)
        return apd_fail(
            err, APD_CONFIG,
            "rank %u on %s: configuration digest: expected %s (the coordinator's), found "
            "%.64s",
            join->rank, join->host, roster->facts.config_digest, join->config_digest);
    if (strlen(join->data_digest) >= APD_SHA256_HEX)
        return apd_fail(err, APD_CONFIG, "rank %u on %s: data digest of %zu bytes", join->rank,
                        join->host, strlen(join->data_digest));
    return check_shards(join, err);
}

static enum apd_code differ_text(const struct apd_roster *roster, const Advprop__V1__Join *join,
                                 const char *what, const char *expected, const char *found,
                                 struct apd_err *err)
{
    return apd_fail(err, APD_CONFIG,
                    "rank %u on %s: %s: expected %.120s (of rank %u), found %.120s", join->rank,
                    join->host, what, expected, roster->facts.told_by, found);
}

static enum apd_code differ_number(const struct apd_roster *roster, const Advprop__V1__Join *join,
                                   const char *what, uint64_t expected, uint64_t found,
                                   struct apd_err *err)
{
    return apd_fail(err, APD_CONFIG,
                    "rank %u on %s: %s: expected %" PRIu64 " (of rank %u), found %" PRIu64,
                    join->rank, join->host, what, expected, roster->facts.told_by, found);
}

static enum apd_code check_with_others(const struct apd_roster *roster,
                                       const Advprop__V1__Join *join, struct apd_err *err)
{
    const struct apd_facts *facts = &roster->facts;

    if (strcmp(join->layout, facts->layout) != 0)
        return differ_text(roster, join, "layout of the parameters", facts->layout, join->layout,
                           err);
    if (strcmp(join->data_digest, facts->data_digest) != 0)
        return differ_text(roster, join, "data digest", facts->data_digest, join->data_digest, err);
    if (join->samples != facts->samples)
        return differ_number(roster, join, "samples", facts->samples, join->samples, err);
    if (join->classes != facts->classes)
        return differ_number(roster, join, "classes", facts->classes, join->classes, err);
    if (join->n_shard_samples != facts->shards)
        return differ_number(roster, join, "shards", facts->shards, join->n_shard_samples, err);
    for (uint32_t i = 0; i < facts->shards; i++)
        if (join->shard_samples[i] != facts->shard_samples[i])
            return differ_number(roster, join, "samples of a shard", facts->shard_samples[i],
                                 join->shard_samples[i], err);
    return APD_OK;
}

static enum apd_code take_facts(struct apd_facts *facts, const Advprop__V1__Join *join,
                                struct apd_err *err)
{
    char *layout = strdup(join->layout);
    uint64_t *shard_samples = malloc(join->n_shard_samples * sizeof *shard_samples);

    if (layout == NULL || shard_samples == NULL) {
        free(layout);
        free(shard_samples);
        return apd_fail(err, APD_NOMEM, "what rank %u told of its data set", join->rank);
    }
    memcpy(shard_samples, join->shard_samples, join->n_shard_samples * sizeof *shard_samples);
    facts->layout = layout;
    facts->shard_samples = shard_samples;
    facts->shards = (uint32_t)join->n_shard_samples;
    (void)snprintf(facts->data_digest, sizeof facts->data_digest, "%s", join->data_digest);
    facts->samples = join->samples;
    facts->classes = join->classes;
    facts->told_by = join->rank;
    return APD_OK;
}

enum apd_code apd_roster_join(struct apd_roster *roster, uint64_t conn, uint64_t now_ms,
                              const Advprop__V1__Join *join, struct apd_err *err)
{
    struct apd_worker *worker;

    APD_TRY(check_rank(roster, join, err));
    APD_TRY(check_alone(roster, join, err));
    if (roster->facts.told_by == 0)
        APD_TRY(take_facts(&roster->facts, join, err));
    else
        APD_TRY(check_with_others(roster, join, err));
    worker = &roster->worker[join->rank - 1];
    worker->conn = conn;
    worker->joined = 1;
    worker->pid = join->pid;
    worker->phase = ADVPROP__V1__PHASE__PHASE_STARTING;
    worker->heard_ms = now_ms;
    (void)snprintf(worker->host, sizeof worker->host, "%s", join->host);
    (void)snprintf(worker->backend, sizeof worker->backend, "%s", join->backend);
    roster->joined++;
    return APD_OK;
}

struct apd_worker *apd_roster_find(const struct apd_roster *roster, uint64_t conn)
{
    for (uint32_t i = 0; i < roster->count; i++)
        if (conn != 0 && roster->worker[i].conn == conn)
            return &roster->worker[i];
    return NULL;
}

uint32_t apd_roster_rank(const struct apd_roster *roster, const struct apd_worker *worker)
{
    return (uint32_t)(worker - roster->worker) + 1;
}

uint32_t apd_roster_connected(const struct apd_roster *roster)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < roster->count; i++)
        n += roster->worker[i].conn != 0;
    return n;
}
