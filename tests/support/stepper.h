/* A small training in one process: synthetic images, one worker, any backend. For tests of the
 * step. */
#ifndef APD_TESTS_SUPPORT_STEPPER_H
#define APD_TESTS_SUPPORT_STEPPER_H

#include "kernels/backend.h"
#include "proto/config.h"
#include "worker/comm.h"
#include "worker/model/arch.h"
#include "worker/model/params.h"
#include "worker/step.h"

struct stepper {
    struct apd_backend *be;
    struct apd_config config;
    struct apd_arch arch;
    struct apd_params *params;
    struct apd_comm *comm;
    struct apd_step *step;
    /* The step's data; tests may change it. */
    uint8_t *pixels;
    int32_t *labels;
    uint64_t *sample;
    uint32_t *epoch;
    struct apd_step_data data;
    size_t rows, pixels_per_image;
};

/* A ResNet of `blocks per stage` as named by arch with stem width `width` on c x px x px images of
 * 5 classes; lanes x (clean + aux) images a step. */
struct stepper_shape {
    const char *arch;
    int width, c, px, lanes, clean, aux;
};

/* A two-lane network of a few thousand parameters with both BNs. */
extern const struct stepper_shape stepper_tiny;

struct apd_backend *stepper_ref64(void);
struct apd_backend *stepper_ref(void);
struct apd_backend *stepper_cpu(int threads);

/* Defaults of a test: no weight decay, no smoothing, noise always used, whole attack. */
void stepper_config(struct apd_config *config, const struct stepper_shape *shape);

/* Takes the backend; asserts on failure (cmocka). */
void stepper_init(struct stepper *stepper, struct apd_backend *be, const struct apd_config *config,
                  const struct stepper_shape *shape);
void stepper_fini(struct stepper *stepper);

/* One step; returns sum over branches of weight * CE, not divided. */
double stepper_run(struct stepper *stepper, uint64_t number, double lr,
                   struct apd_step_result *out_result);

/* Canonical floats of all weights (stats = 0) or running statistics, `*out_n` of them; caller
 * frees. */
float *stepper_values(struct stepper *stepper, const void *flat, int stats, size_t *out_n);

/* ||a - b|| / ||b||. */
double relative_distance(const float *a, const float *b, size_t n);

#endif
