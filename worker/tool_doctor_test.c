/* The doctor's self test: a small network trains on both devices from the same weights on the same
 * images; the losses have to be the same to rounding. */
#include "worker/synthetic.h"
#include "worker/tool_doctor.h"

#include <math.h>
#include <stdio.h>

enum { STEPS = 5, CLASSES = 10, PX = 16 };

/* Small: the attack takes signs, and steps carry on what differs. */
#define RATE 1e-3

static enum apd_code train(const char *device, const char *precision, double losses[STEPS],
                           struct apd_err *err)
{
    char device_is[32], precision_is[32];
    const char *overrides[] = {
        device_is,          precision_is,     "model.arch=resnet18", "model.width=16",
        "model.stem=small", "train.batch=10", "train.lanes=1",       "seed=7"};
    const struct apd_shape image = {3, PX, PX};
    struct apd_synthetic *synthetic = NULL;
    enum apd_code rc;

    (void)snprintf(device_is, sizeof device_is, "device=%s", device);
    (void)snprintf(precision_is, sizeof precision_is, "cuda.precision=%s", precision);
    APD_GO(apd_synthetic_create(overrides, sizeof overrides / sizeof *overrides, image, CLASSES,
                                NULL, &synthetic, err));
    for (int i = 0; i < STEPS; i++)
        APD_GO(apd_synthetic_step(synthetic, RATE, &losses[i], err));
done:
    apd_synthetic_destroy(&synthetic);
    return rc;
}

static double distance(const double *a, const double *b)
{
    double most = 0;

    for (int i = 0; i < STEPS; i++) {
        double d = fabs(a[i] - b[i]) / fabs(b[i]);

        if (!(d <= most)) /* NaN too */
            most = d;
    }
    return most;
}

static enum apd_code compare(json_t *tests, const char *precision, double tolerance,
                             const double *cpu, struct apd_err *err)
{
    char text[640];
    double gpu[STEPS] = {0}, d = INFINITY;
    struct apd_err failed = {0};
    int pass = train("cuda", precision, gpu, &failed) == APD_OK;

    if (pass) {
        d = distance(gpu, cpu);
        pass = d <= tolerance;
        (void)snprintf(text, sizeof text,
                       "losses of %d steps differ from the CPU's by %.1e at most, allowed are %.0e",
                       STEPS, d, tolerance);
    } else {
        (void)snprintf(text, sizeof text, "%s", failed.msg);
    }
    json_array_append_new(tests,
                          json_pack("{ss sb ss}", "name", precision, "pass", pass, "text", text));
    if (!pass)
        return apd_fail(err, APD_DEVICE, "the self test in %s failed: %.400s", precision, text);
    return APD_OK;
}

enum apd_code apd_doctor_test(json_t *tests, struct apd_err *err)
{
    static const struct {
        const char *precision;
        double tolerance;
    } all[] = {{"fp32", 1e-4}, {"fp16", 2e-2}};
    double cpu[STEPS];
    struct apd_err later;
    enum apd_code rc = APD_OK;

    APD_TRY(train("cpu", "fp32", cpu, err));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (compare(tests, all[i].precision, all[i].tolerance, cpu, rc == APD_OK ? err : &later) !=
            APD_OK)
            rc = APD_DEVICE;
    return rc;
}
