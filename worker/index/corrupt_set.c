#include "worker/index/corrupt_set.h"

#include "base/fs.h"
#include "worker/data/corrupt/corrupt.h"
#include "worker/data/png_write.h"
#include "worker/index/parallel.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STAMP ".advprop-corrupt"

enum { STAMP_MAX = 512, SAMPLE_DIGITS_LEAST = 5 };

struct job {
    const struct apd_corrupt_settings *settings;
    struct apd_dataset *dataset;
    int class_digits, sample_digits; /* names sort as the numbers do */
    atomic_ullong written, kept;
};

/* What one sample needs while it is worked on. */
struct buffers {
    struct apd_image original, image;
    struct apd_corrupt_scratch scratch;
    struct apd_sample_bytes png;
};

static void buffers_fini(struct buffers *buffers)
{
    apd_image_fini(&buffers->original);
    apd_image_fini(&buffers->image);
    apd_corrupt_scratch_fini(&buffers->scratch);
    apd_sample_bytes_fini(&buffers->png);
}

/* The one place that knows how samples are stored: [c][h][w]. */
static enum apd_code read_sample(const struct apd_dataset *dataset, uint64_t sample,
                                 struct apd_image *out, int32_t *out_label, struct apd_err *err)
{
    int c = dataset->c, pixels = dataset->h * dataset->w;
    struct apd_buffer buffer = {0};
    struct apd_stored stored;
    enum apd_code rc;

    APD_GO(apd_dataset_fetch(dataset, sample, &buffer, &stored, err));
    APD_GO(apd_image_reserve(out, dataset->w, dataset->h, c, err));
    for (int i = 0; i < pixels * c; i++)
        out->px[i] = stored.bytes[i % c * pixels + i / c];
    *out_label = stored.label;
done:
    free(buffer.bytes);
    return rc;
}

static enum apd_code class_folder(const struct job *job, int corruption, int severity,
                                  uint32_t label, char out[PATH_MAX], struct apd_err *err)
{
    int n = snprintf(out, PATH_MAX, "%s/%s/%d/%0*" PRIu32, job->settings->dst,
                     apd_corruptions[corruption].name, severity, job->class_digits, label);

    return n < PATH_MAX ? APD_OK
                        : apd_fail(err, APD_CONFIG, "DST of %zu bytes is too long",
                                   strlen(job->settings->dst));
}

static enum apd_code make_image(struct job *job, int corruption, int severity, uint64_t sample,
                                int32_t label, struct buffers *buffers, struct apd_err *err)
{
    const struct apd_image *original = &buffers->original;
    struct apd_image *image = &buffers->image;
    char folder[PATH_MAX], path[PATH_MAX + 32];

    APD_TRY(class_folder(job, corruption, severity, (uint32_t)label, folder, err));
    (void)snprintf(path, sizeof path, "%s/%0*" PRIu64 ".png", folder, job->sample_digits, sample);
    if (access(path, F_OK) == 0) {
        atomic_fetch_add(&job->kept, 1);
        return APD_OK;
    }
    APD_TRY(apd_image_reserve(image, original->w, original->h, original->c, err));
    memcpy(image->px, original->px, apd_dataset_image_bytes(job->dataset));
    APD_TRY(apd_corrupt(corruption, severity, job->settings->seed, sample, &buffers->scratch, image,
                        err));
    APD_TRY(apd_png_write(image->px, image->w, image->h, image->c, &buffers->png, err));
    APD_TRY(apd_write_file(path, buffers->png.data, buffers->png.size, 0, err));
    atomic_fetch_add(&job->written, 1);
    return APD_OK;
}

/* Whether the settings ask for this pair. */
static int wanted(const struct apd_corrupt_settings *settings, int corruption, int severity)
{
    return (settings->corruptions >> corruption & 1) != 0 &&
           (settings->severities >> severity & 1) != 0;
}

/* All wanted images of one sample. */
static enum apd_code make_images(void *context, size_t sample, struct apd_err *err)
{
    struct job *job = context;
    struct apd_reading *reading = job->settings->reading;
    struct buffers buffers = {0};
    enum apd_code rc;
    int32_t label;

    APD_GO(read_sample(job->dataset, sample, &buffers.original, &label, err));
    for (int k = 0; k < APD_CORRUPTIONS; k++)
        for (int severity = 1; severity <= APD_SEVERITIES; severity++) {
            if (!wanted(job->settings, k, severity))
                continue;
            APD_GO(make_image(job, k, severity, sample, label, &buffers, err));
            atomic_fetch_add(&reading->samples, 1);
            atomic_fetch_add(&reading->bytes, apd_dataset_image_bytes(job->dataset));
        }
done:
    buffers_fini(&buffers);
    return rc;
}

static enum apd_code make_folders(const struct job *job, struct apd_err *err)
{
    char folder[PATH_MAX];

    for (int k = 0; k < APD_CORRUPTIONS; k++)
        for (int severity = 1; severity <= APD_SEVERITIES; severity++)
            for (uint32_t label = 0; label < job->dataset->classes; label++) {
                if (!wanted(job->settings, k, severity))
                    continue;
                APD_TRY(class_folder(job, k, severity, label, folder, err));
                APD_TRY(apd_mkdirs(folder, 0755, err));
            }
    return APD_OK;
}

/* DST says what it was made of, so that a second call does not mix it with something else. */
static enum apd_code check_stamp(const struct job *job, struct apd_err *err)
{
    const struct apd_corrupt_settings *settings = job->settings;
    char path[PATH_MAX], stamp[STAMP_MAX], *found = NULL;
    enum apd_code rc = APD_OK;
    int same;

    (void)snprintf(stamp, sizeof stamp, "advprop corrupt 1\ndata %s\nsplit %s\nseed %" PRIu64 "\n",
                   job->dataset->digest, settings->split == APD_SPLIT_TRAIN ? "train" : "test",
                   settings->seed);
    if (snprintf(path, sizeof path, "%s/" STAMP, settings->dst) >= PATH_MAX)
        return apd_fail(err, APD_CONFIG, "DST of %zu bytes is too long", strlen(settings->dst));
    APD_TRY(apd_mkdirs(settings->dst, 0755, err));
    if (access(path, F_OK) != 0)
        return apd_write_file(path, stamp, strlen(stamp), 0, err);
    APD_TRY(apd_read_file(path, STAMP_MAX, &found, NULL, err));
    same = strcmp(found, stamp) == 0;
    if (!same)
        rc = apd_fail(err, APD_CONFIG,
                      "%s holds images of another data set, split or seed (its " STAMP
                      " says which): take another folder",
                      settings->dst);
    free(found);
    return rc;
}

/* Of the numbers below n. */
static int digits(uint64_t n)
{
    return snprintf(NULL, 0, "%" PRIu64, n > 0 ? n - 1 : 0);
}

enum apd_code apd_corrupt_set(const struct apd_corrupt_settings *settings,
                              struct apd_corrupt_report *report, struct apd_err *err)
{
    struct job job = {.settings = settings};
    struct apd_parallel work = {.threads = settings->threads,
                                .body = make_images,
                                .context = &job,
                                .stop = settings->reading->stop,
                                .tick = settings->tick,
                                .tick_context = settings->context};
    uint64_t samples;
    enum apd_code rc;

    *report = (struct apd_corrupt_report){0};
    APD_TRY(apd_dataset_open("idx", settings->src, settings->split, 0, &job.dataset, err));
    samples = job.dataset->samples;
    job.class_digits = digits(job.dataset->classes);
    job.sample_digits =
        digits(samples) < SAMPLE_DIGITS_LEAST ? SAMPLE_DIGITS_LEAST : digits(samples);
    work.count = settings->limit > 0 && settings->limit < samples ? settings->limit : samples;
    report->total_bytes = work.count * apd_dataset_image_bytes(job.dataset) *
                          (uint64_t)__builtin_popcount(settings->corruptions) *
                          (uint64_t)__builtin_popcount(settings->severities);
    APD_GO(check_stamp(&job, err));
    APD_GO(make_folders(&job, err));
    rc = apd_parallel_run(&work, err);
done:
    report->written = atomic_load(&job.written);
    report->kept = atomic_load(&job.kept);
    apd_dataset_close(&job.dataset);
    return rc;
}
