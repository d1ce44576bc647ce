#include "worker/index/corrupt_set.h"

#include "base/fs.h"
#include "worker/data/corrupt/corrupt.h"
#include "worker/data/corrupt/jpeg.h"
#include "worker/data/png_write.h"
#include "worker/index/corrupt_source.h"
#include "worker/index/out_file.h"
#include "worker/index/parallel.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define STAMP ".advprop-corrupt"

enum { STAMP_MAX = 512, SAMPLE_DIGITS_LEAST = 5, CLASS_NAME_MAX = 256 };

struct job {
    const struct apd_corrupt_settings *settings;
    struct apd_corrupt_source source;
    int sample_digits; /* names sort as the numbers do */
    int lock;          /* of DST, by its stamp; -1: there is none */
    int alone;         /* nobody else works in DST */
    atomic_ullong written, kept, bad;
};

/* What one sample needs while it is worked on. */
struct buffers {
    struct apd_sampler *sampler;
    struct apd_image planes, original, image;
    struct apd_corrupt_scratch scratch;
    struct apd_sample_bytes png;
};

static void buffers_fini(struct buffers *buffers)
{
    apd_sampler_destroy(&buffers->sampler);
    apd_image_fini(&buffers->planes);
    apd_image_fini(&buffers->original);
    apd_image_fini(&buffers->image);
    apd_corrupt_scratch_fini(&buffers->scratch);
    apd_sample_bytes_fini(&buffers->png);
}

static size_t image_bytes(const struct job *job)
{
    const struct apd_shape *shape = &job->source.shape;

    return (size_t)shape->c * (size_t)shape->h * (size_t)shape->w;
}

/* ---------------------------------------------------------------- images */

static enum apd_code class_folder(const struct job *job, int corruption, int severity,
                                  uint32_t label, char out[PATH_MAX], struct apd_err *err)
{
    char name[CLASS_NAME_MAX];
    int n;

    apd_dataset_class(job->source.dataset, label, name, sizeof name);
    n = snprintf(out, PATH_MAX, "%s/%s/%d/%s", job->settings->dst, apd_corruptions[corruption].name,
                 severity, name);
    return n < PATH_MAX ? APD_OK
                        : apd_fail(err, APD_CONFIG, "DST of %zu bytes is too long",
                                   strlen(job->settings->dst));
}

static enum apd_code write_image(const struct job *job, const char *path, struct buffers *buffers,
                                 struct apd_err *err)
{
    const struct apd_image *image = &buffers->image;
    int is_small = image->w <= APD_CORRUPTION_SMALL_PX && image->h <= APD_CORRUPTION_SMALL_PX;
    unsigned char *jpeg;
    unsigned long bytes;
    enum apd_code rc;

    if (job->settings->jpeg_quality == 0) {
        APD_TRY(apd_png_write(image->px, image->w, image->h, image->c,
                              is_small ? APD_PNG_SMALL : APD_PNG_FAST, &buffers->png, err));
        return apd_write_file(path, buffers->png.data, buffers->png.size, 0, err);
    }
    APD_TRY(apd_jpeg_encode(image, job->settings->jpeg_quality, &jpeg, &bytes, err));
    rc = apd_write_file(path, jpeg, bytes, 0, err);
    free(jpeg);
    return rc;
}

static enum apd_code make_image(struct job *job, int corruption, int severity, uint64_t sample,
                                int32_t label, struct buffers *buffers, struct apd_err *err)
{
    const struct apd_image *original = &buffers->original;
    struct apd_image *image = &buffers->image;
    char folder[PATH_MAX], path[PATH_MAX + 32];

    APD_TRY(class_folder(job, corruption, severity, (uint32_t)label, folder, err));
    (void)snprintf(path, sizeof path, "%s/%0*" PRIu64 ".%s", folder, job->sample_digits, sample,
                   job->settings->jpeg_quality == 0 ? "png" : "jpg");
    if (access(path, F_OK) == 0) {
        atomic_fetch_add(&job->kept, 1);
        return APD_OK;
    }
    APD_TRY(apd_image_reserve(image, original->w, original->h, original->c, err));
    memcpy(image->px, original->px, image_bytes(job));
    APD_TRY(apd_corrupt(corruption, severity, job->settings->seed, sample, &buffers->scratch, image,
                        err));
    APD_TRY(write_image(job, path, buffers, err));
    atomic_fetch_add(&job->written, 1);
    return APD_OK;
}

/* Whether the settings ask for this pair. */
static int wanted(const struct apd_corrupt_settings *settings, int corruption, int severity)
{
    return (settings->corruptions >> corruption & 1) != 0 &&
           (settings->severities >> severity & 1) != 0;
}

static void note_bad(struct job *job, uint64_t sample, const struct apd_err *err)
{
    char line[sizeof err->msg + 48];

    (void)snprintf(line, sizeof line, "sample %" PRIu64 " is left out: %s", sample, err->msg);
    job->settings->say(job->settings->context, line);
    atomic_fetch_add(&job->bad, 1);
}

/* All wanted images of one sample. */
static enum apd_code make_images(void *context, size_t sample, struct apd_err *err)
{
    struct job *job = context;
    struct apd_reading *reading = job->settings->reading;
    struct buffers buffers = {0};
    enum apd_code rc;
    int32_t label;

    APD_GO(apd_sampler_create(&job->source.view, job->source.dataset, &buffers.sampler, err));
    rc = apd_corrupt_source_read(&job->source, buffers.sampler, sample, &buffers.planes,
                                 &buffers.original, &label, err);
    if (rc == APD_DATA) {
        note_bad(job, sample, err);
        rc = APD_OK;
        goto done;
    }
    for (int k = 0; k < APD_CORRUPTIONS && rc == APD_OK; k++)
        for (int severity = 1; severity <= APD_SEVERITIES; severity++) {
            if (!wanted(job->settings, k, severity))
                continue;
            APD_GO(make_image(job, k, severity, sample, label, &buffers, err));
            atomic_fetch_add(&reading->samples, 1);
            atomic_fetch_add(&reading->bytes, image_bytes(job));
        }
done:
    buffers_fini(&buffers);
    return rc;
}

/* ---------------------------------------------------------------- DST */

/* NUMBER.png or NUMBER.jpg */
static int is_image(const void *context, const char *name)
{
    size_t digits = strspn(name, "0123456789");

    (void)context;
    return digits > 0 && (strcmp(name + digits, ".png") == 0 || strcmp(name + digits, ".jpg") == 0);
}

static enum apd_code make_folder(const struct job *job, int corruption, int severity,
                                 uint32_t label, struct apd_err *err)
{
    char folder[PATH_MAX];

    APD_TRY(class_folder(job, corruption, severity, label, folder, err));
    APD_TRY(apd_mkdirs(folder, 0755, err));
    return job->alone ? apd_out_sweep(folder, is_image, NULL, err) : APD_OK;
}

static enum apd_code make_folders(const struct job *job, struct apd_err *err)
{
    for (int k = 0; k < APD_CORRUPTIONS; k++)
        for (int severity = 1; severity <= APD_SEVERITIES; severity++)
            for (uint32_t label = 0; label < job->source.dataset->classes; label++)
                if (wanted(job->settings, k, severity))
                    APD_TRY(make_folder(job, k, severity, label, err));
    return APD_OK;
}

static void write_stamp(const struct job *job, char out[STAMP_MAX])
{
    int n = snprintf(out, STAMP_MAX, "advprop corrupt 1\ndata %s\n%sseed %" PRIu64 "\n",
                     job->source.dataset->digest, job->source.stamp, job->settings->seed);

    if (job->settings->jpeg_quality != 0)
        (void)snprintf(out + n, STAMP_MAX - (size_t)n, "jpeg %d\n", job->settings->jpeg_quality);
}

static enum apd_code compare_stamp(const struct job *job, const char *path, const char *stamp,
                                   struct apd_err *err)
{
    enum apd_code rc = APD_OK;
    char *found = NULL;

    APD_TRY(apd_read_file(path, STAMP_MAX, &found, NULL, err));
    if (strcmp(found, stamp) != 0)
        rc = apd_fail(err, APD_CONFIG,
                      "%s holds images of another data set, split, size, seed or format (its " STAMP
                      " says which): take another folder",
                      job->settings->dst);
    free(found);
    return rc;
}

/* DST says what it was made of, so that a second call does not mix it with something else. */
static enum apd_code check_stamp(struct job *job, struct apd_err *err)
{
    const char *dst = job->settings->dst;
    char path[PATH_MAX], stamp[STAMP_MAX];

    write_stamp(job, stamp);
    if (snprintf(path, sizeof path, "%s/" STAMP, dst) >= PATH_MAX)
        return apd_fail(err, APD_CONFIG, "DST of %zu bytes is too long", strlen(dst));
    APD_TRY(apd_mkdirs(dst, 0755, err));
    if (access(path, F_OK) != 0)
        APD_TRY(apd_write_file(path, stamp, strlen(stamp), 0, err));
    else
        APD_TRY(compare_stamp(job, path, stamp, err));
    job->lock = open(path, O_RDWR | O_CLOEXEC);
    job->alone = job->lock >= 0 && flock(job->lock, LOCK_EX | LOCK_NB) == 0;
    return APD_OK;
}

/* Several may work in DST, once nobody sweeps it any more. */
static void share_lock(struct job *job)
{
    if (job->lock >= 0)
        (void)flock(job->lock, LOCK_SH);
    job->alone = 0;
}

/* ---------------------------------------------------------------- all of it */

/* Of the numbers below n. */
static int digits(uint64_t n)
{
    return snprintf(NULL, 0, "%" PRIu64, n > 0 ? n - 1 : 0);
}

enum apd_code apd_corrupt_set(const struct apd_corrupt_settings *settings,
                              struct apd_corrupt_report *report, struct apd_err *err)
{
    struct job job = {.settings = settings, .lock = -1};
    struct apd_parallel work = {.threads = settings->threads,
                                .body = make_images,
                                .context = &job,
                                .stop = settings->reading->stop,
                                .tick = settings->tick,
                                .tick_context = settings->context};
    uint64_t samples;
    enum apd_code rc;

    *report = (struct apd_corrupt_report){0};
    APD_GO(apd_corrupt_source_open(settings, &job.source, err));
    samples = job.source.dataset->samples;
    job.sample_digits =
        digits(samples) < SAMPLE_DIGITS_LEAST ? SAMPLE_DIGITS_LEAST : digits(samples);
    work.count = settings->limit > 0 && settings->limit < samples ? settings->limit : samples;
    report->total_bytes = work.count * image_bytes(&job) *
                          (uint64_t)__builtin_popcount(settings->corruptions) *
                          (uint64_t)__builtin_popcount(settings->severities);
    APD_GO(check_stamp(&job, err));
    if (!job.alone)
        share_lock(&job);
    APD_GO(make_folders(&job, err));
    share_lock(&job);
    APD_GO(apd_parallel_run(&work, err));
    if (atomic_load(&job.bad) == work.count)
        rc = apd_fail(err, APD_DATA, "%s: none of %zu images can be used", settings->src,
                      work.count);
done:
    report->written = atomic_load(&job.written);
    report->kept = atomic_load(&job.kept);
    report->bad = atomic_load(&job.bad);
    if (job.lock >= 0)
        close(job.lock);
    apd_corrupt_source_fini(&job.source);
    return rc;
}
