/* Times whole training steps on one device, on synthetic images: no data, no decoding. Not a test.
 * usage: bench_step_device CLEAN AUX PX STEPS [run=FOLDER] [key=value ...]; the settings are those
 * of run.yaml (device, cuda.precision, model.arch ...); the device's choices are kept in the
 * folder. AUX 0: plain training. Prints one JSON object, and to stderr what the device came to. */
#include "base/clock.h"
#include "base/log.h"
#include "worker/synthetic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UP = 3, CLASSES = 1000, MAX_STEPS = 10000, MAX_SETTINGS = 32 };

static int compare_doubles(const void *x, const void *y)
{
    double p = *(const double *)x, q = *(const double *)y;

    return (p > q) - (p < q);
}

static int positive(const char *text, int least)
{
    int value = atoi(text);

    if (value < least || value > MAX_STEPS) {
        fprintf(stderr, "expected %d to %d, found %s\n", least, MAX_STEPS, text);
        exit(64);
    }
    return value;
}

/* Seconds of each step after the first few, ascending. */
static enum apd_code measure(struct apd_synthetic *synthetic, int steps, double *took,
                             double *out_loss, struct apd_err *err)
{
    for (int i = -WARM_UP; i < steps; i++) {
        double began = apd_now_s();

        APD_TRY(apd_synthetic_step(synthetic, 1e-3, out_loss, err));
        if (i >= 0)
            took[i] = apd_now_s() - began;
    }
    qsort(took, (size_t)steps, sizeof *took, compare_doubles);
    return APD_OK;
}

int main(int argc, char **argv)
{
    char batch[48], clean_parts[48], aux_parts[48];
    const char *settings[MAX_SETTINGS] = {batch, "train.lanes=1", clean_parts, aux_parts};
    static double took[MAX_STEPS];
    struct apd_synthetic *synthetic = NULL;
    struct apd_err err = {0};
    const char *run_dir = NULL;
    int clean, aux, px, steps, count = 4;
    double loss = 0;

    if (argc < 5 || argc - 5 > MAX_SETTINGS - 5) {
        fprintf(stderr, "usage: %s CLEAN AUX PX STEPS [run=FOLDER] [key=value ...]\n", argv[0]);
        return 64;
    }
    clean = positive(argv[1], 1);
    aux = positive(argv[2], 0);
    px = positive(argv[3], 8);
    steps = positive(argv[4], 1);
    (void)snprintf(batch, sizeof batch, "train.batch=%d", clean + aux);
    if (aux == 0) {
        settings[2] = "train.mode=vanilla";
        count = 3;
    } else {
        (void)snprintf(clean_parts, sizeof clean_parts, "train.clean_parts=%d", clean);
        (void)snprintf(aux_parts, sizeof aux_parts, "train.aux_parts=%d", aux);
    }
    for (int i = 5; i < argc; i++)
        if (strncmp(argv[i], "run=", 4) == 0)
            run_dir = argv[i] + 4;
        else
            settings[count++] = argv[i];
    apd_log_init("bench", -1, APD_LOG_INFO);
    if (apd_synthetic_create(settings, (size_t)count, (struct apd_shape){3, px, px}, CLASSES,
                             run_dir, &synthetic, &err) != APD_OK ||
        measure(synthetic, steps, took, &loss, &err) != APD_OK ||
        apd_synthetic_settle(synthetic, &err) != APD_OK) {
        fprintf(stderr, "%s\n", err.msg);
        apd_synthetic_destroy(&synthetic);
        return apd_exit_status(err.code);
    }
    printf("{\"device\": \"%s\", \"clean\": %d, \"aux\": %d, \"px\": %d, \"steps\": %d, "
           "\"step_ms\": %.3f, \"fastest_ms\": %.3f, \"images_per_s\": %.1f, \"loss\": %.17g}\n",
           apd_synthetic_device(synthetic), clean, aux, px, steps, took[steps / 2] * 1e3,
           took[0] * 1e3, (clean + aux) / took[steps / 2], loss);
    apd_synthetic_destroy(&synthetic);
    return 0;
}
