#include "worker/index/survey.h"

#include "worker/data/sample_read.h"
#include "worker/index/parallel.h"

#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Headers end before, unless there is much in front of them (EXIF, colour profiles). */
enum { HEAD_BYTES = 16 << 10 };

struct sizes {
    uint32_t *w, *h; /* [samples], 0: unknown */
};

struct look {
    const struct apd_survey_settings *settings;
    struct apd_survey *out;
    struct sizes sizes;
    pthread_mutex_t lock; /* of *out and say */
};

static int by_value(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

    return (left > right) - (left < right);
}

/* Sorts `value`; zeros do not count. */
static struct apd_spread spread_of(uint32_t *value, uint64_t count)
{
    uint64_t zeros = 0;

    qsort(value, count, sizeof *value, by_value);
    while (zeros < count && value[zeros] == 0)
        zeros++;
    if (zeros == count)
        return (struct apd_spread){0};
    return (struct apd_spread){value[zeros], value[zeros + (count - zeros - 1) / 2],
                               value[count - 1]};
}

/* Reads as little as tells: the head, or all where that is not enough. */
static enum apd_code probe(const struct apd_manifest *manifest, uint64_t sample,
                           struct apd_sample_bytes *bytes, struct apd_image_info *out,
                           struct apd_err *err)
{
    struct apd_manifest_sample record;

    APD_TRY(apd_sample_read(manifest, sample, HEAD_BYTES, bytes, &record, err));
    if (bytes->size == record.size || apd_image_probe(bytes->data, bytes->size, out, err) == APD_OK)
        return apd_image_probe(bytes->data, bytes->size, out, err);
    APD_TRY(apd_sample_read(manifest, sample, 0, bytes, NULL, err));
    return apd_image_probe(bytes->data, bytes->size, out, err);
}

static void note(struct look *look, uint64_t sample, const struct apd_image_info *info,
                 const struct apd_err *err)
{
    struct apd_manifest_sample record;
    char line[2 * PATH_MAX];

    pthread_mutex_lock(&look->lock);
    if (info != NULL) {
        look->out->codec[info->codec]++;
        look->out->colour[info->colour]++;
        look->sizes.w[sample] = (uint32_t)info->w;
        look->sizes.h[sample] = (uint32_t)info->h;
    } else {
        apd_manifest_sample(look->settings->manifest, sample, &record);
        (void)snprintf(line, sizeof line, "%s: sample %" PRIu64 " at offset %" PRIu64 ": %s",
                       record.path, sample, record.offset, err->msg);
        look->out->unknown++;
        look->settings->say(look->settings->context, line);
    }
    pthread_mutex_unlock(&look->lock);
}

static enum apd_code look_at_shard(void *context, size_t i, struct apd_err *err)
{
    struct look *look = context;
    struct apd_reading *reading = look->settings->reading;
    struct apd_sample_bytes bytes = {0};
    struct apd_manifest_shard shard;
    enum apd_code rc = APD_OK;

    apd_manifest_shard(look->settings->manifest, (uint32_t)i, &shard);
    for (uint64_t s = shard.first_sample; s < shard.first_sample + shard.samples; s++) {
        struct apd_image_info info;

        if (reading->stop != NULL && atomic_load(reading->stop) != 0) {
            rc = apd_fail(err, APD_CANCELED, "stopped by a signal");
            break;
        }
        rc = probe(look->settings->manifest, s, &bytes, &info, err);
        if (rc != APD_OK && rc != APD_DATA && rc != APD_IO)
            break;
        note(look, s, rc == APD_OK ? &info : NULL, err);
        rc = APD_OK;
        atomic_fetch_add(&reading->samples, 1);
        atomic_fetch_add(&reading->bytes, bytes.size);
    }
    apd_sample_bytes_fini(&bytes);
    return rc;
}

static enum apd_code count_classes(struct apd_survey *out, uint32_t classes, struct apd_err *err)
{
    uint32_t *sizes = malloc(((size_t)classes + 1) * sizeof *sizes);
    uint32_t smallest = UINT32_MAX;

    if (sizes == NULL)
        return apd_fail(err, APD_NOMEM, "%u classes", classes);
    for (uint32_t i = 0; i < classes; i++) {
        sizes[i] =
            out->class_samples[i] < UINT32_MAX ? (uint32_t)out->class_samples[i] : UINT32_MAX;
        smallest = sizes[i] < smallest ? sizes[i] : smallest;
    }
    out->class_size = spread_of(sizes, classes);
    out->class_size.min = smallest; /* an empty class counts */
    free(sizes);
    return APD_OK;
}

enum apd_code apd_survey(const struct apd_survey_settings *settings, struct apd_survey *out,
                         struct apd_err *err)
{
    const struct apd_manifest_info *info = apd_manifest_info(settings->manifest);
    struct look look = {.settings = settings, .out = out, .lock = PTHREAD_MUTEX_INITIALIZER};
    struct apd_parallel work = {.count = info->shards,
                                .threads = settings->threads,
                                .body = look_at_shard,
                                .context = &look,
                                .stop = settings->reading->stop,
                                .tick = settings->tick,
                                .tick_context = settings->context};
    uint32_t *bytes = malloc((info->samples + 1) * sizeof *bytes);
    enum apd_code rc;

    *out = (struct apd_survey){0};
    out->class_samples = calloc((size_t)info->classes + 1, sizeof *out->class_samples);
    look.sizes.w = calloc(info->samples + 1, sizeof *look.sizes.w);
    look.sizes.h = calloc(info->samples + 1, sizeof *look.sizes.h);
    if (bytes == NULL || out->class_samples == NULL || look.sizes.w == NULL ||
        look.sizes.h == NULL) {
        rc = apd_fail(err, APD_NOMEM, "%" PRIu64 " samples", info->samples);
        goto done;
    }
    for (uint64_t i = 0; i < info->samples; i++) {
        struct apd_manifest_sample sample;

        apd_manifest_sample(settings->manifest, i, &sample);
        out->class_samples[sample.label]++;
        out->total_bytes += sample.size;
        bytes[i] = sample.size;
    }
    APD_GO(count_classes(out, info->classes, err));
    APD_GO(apd_parallel_run(&work, err));
    out->bytes = spread_of(bytes, info->samples);
    out->w = spread_of(look.sizes.w, info->samples);
    out->h = spread_of(look.sizes.h, info->samples);
done:
    free(bytes);
    free(look.sizes.w);
    free(look.sizes.h);
    pthread_mutex_destroy(&look.lock);
    return rc;
}

void apd_survey_fini(struct apd_survey *survey)
{
    free(survey->class_samples);
    *survey = (struct apd_survey){0};
}
