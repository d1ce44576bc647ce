/* Our half of bench_data.py: a loader over an image folder's manifest, drained as fast as it fills.
 *
 *   bench_data MANIFEST PX THREADS BATCH READ_AHEAD STEPS SEED
 *
 * prints three numbers: images per second, from the loader's making to the last step, every image
 * normalised to floats on the step thread; bytes of the ring by arithmetic; peak resident bytes
 * above what was resident just before the loader was made. */
#include "base/clock.h"
#include "worker/data/loader.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 3 };

struct bench {
    struct apd_dataset *dataset;
    size_t plane; /* pixels of a channel */
    float *out;   /* [CHANNELS][plane] */
    double images_per_s;
    uint64_t ring_bytes, before_bytes, peak_bytes;
};

/* A field of /proc/self/status, in bytes; 0 if it is not there. */
static uint64_t status_bytes(const char *field)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    uint64_t kib = 0;

    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0)
            kib = strtoull(line + strlen(field) + 1, NULL, 10);
    if (file != NULL)
        (void)fclose(file);
    return kib * 1024;
}

/* Sets the process's peak back to what is resident now. */
static enum apd_code reset_peak(struct apd_err *err)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    int wrote = file != NULL && fputs("5", file) >= 0;

    if (file == NULL || fclose(file) != 0 || !wrote)
        return apd_fail_errno(err, "/proc/self/clear_refs");
    return APD_OK;
}

/* One pass over each plane. */
static void normalise(const uint8_t *planes, size_t plane, float *out)
{
    static const float mean[] = {0.485f, 0.456f, 0.406f}, deviation[] = {0.229f, 0.224f, 0.225f};

    for (size_t c = 0; c < CHANNELS; c++) {
        float scale = 1 / (255 * deviation[c]), shift = -mean[c] / deviation[c];

        for (size_t i = 0; i < plane; i++)
            out[c * plane + i] = (float)planes[c * plane + i] * scale + shift;
    }
}

static enum apd_code drain(struct bench *bench, const struct apd_loader_settings *settings,
                           uint64_t steps, struct apd_err *err)
{
    size_t image_bytes = CHANNELS * bench->plane, rows = settings->plan->lane_batch;
    double start_s = apd_now_s();
    struct apd_loader *loader = NULL;
    enum apd_code rc = APD_OK;

    APD_GO(apd_loader_create(settings, &loader, err));
    for (uint64_t step = 0; step < steps; step++) {
        const struct apd_step_data *data;

        APD_GO(apd_loader_step(loader, step, &data, NULL, err));
        if (data->bad_count > 0)
            APD_GO(apd_fail(err, APD_DATA, "%s", data->bad[0].reason));
        for (size_t row = 0; row < rows; row++)
            normalise(data->pixels + row * image_bytes, bench->plane, bench->out);
    }
    bench->images_per_s = (double)(steps * rows) / (apd_now_s() - start_s);
    bench->peak_bytes = status_bytes("VmHWM");
    /* What a row of struct apd_step_data holds. */
    bench->ring_bytes = settings->slots * rows *
                        (image_bytes + sizeof(int32_t) + sizeof(uint64_t) + sizeof(uint32_t));
done:
    apd_loader_destroy(&loader);
    return rc;
}

static enum apd_code measure(struct bench *bench, char **arguments, struct apd_err *err)
{
    int px = atoi(arguments[2]);
    struct apd_plan_desc plan = {.lanes = 1, .window = 16384, .shuffle = 1};
    struct apd_loader_settings settings = {
        .plan = &plan, .lane_count = 1, .wait_timeout_ms = 60000};

    APD_TRY(apd_dataset_open("images", arguments[1], APD_SPLIT_TRAIN, 0, &bench->dataset, err));
    plan.samples = bench->dataset->samples;
    plan.shards = bench->dataset->shards;
    plan.shard_samples = bench->dataset->shard_samples;
    plan.lane_batch = (uint32_t)atoi(arguments[4]);
    plan.seed = strtoull(arguments[7], NULL, 0);
    settings.dataset = bench->dataset;
    settings.threads = atoi(arguments[3]);
    settings.slots = (uint32_t)atoi(arguments[5]) + 1;
    settings.sampler = (struct apd_sampler_settings){
        .train = 1, .recipe.seed = plan.seed, .size_px = px, .max_px = UINT64_C(1) << 28};
    APD_TRY(apd_augment_recipe_set(&settings.sampler.recipe, "rrc_flip", err));
    bench->plane = (size_t)px * (size_t)px;
    bench->out = malloc(CHANNELS * bench->plane * sizeof *bench->out);
    if (bench->out == NULL)
        return apd_fail(err, APD_NOMEM, "an image of %d px", px);
    for (size_t i = 0; i < CHANNELS * bench->plane; i++)
        bench->out[i] = 1; /* resident from now on */
    APD_TRY(reset_peak(err));
    bench->before_bytes = status_bytes("VmRSS");
    return drain(bench, &settings, strtoull(arguments[6], NULL, 0), err);
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    struct apd_err err = {0};
    enum apd_code rc;

    if (argc != 8) {
        fprintf(stderr, "usage: bench_data MANIFEST PX THREADS BATCH READ_AHEAD STEPS SEED\n");
        return 64;
    }
    rc = measure(&bench, argv, &err);
    if (rc == APD_OK)
        printf("%.1f %" PRIu64 " %" PRIu64 "\n", bench.images_per_s, bench.ring_bytes,
               bench.peak_bytes - bench.before_bytes);
    else
        fprintf(stderr, "bench_data: %s\n", err.msg);
    apd_dataset_close(&bench.dataset);
    free(bench.out);
    return rc == APD_OK ? 0 : 1;
}
