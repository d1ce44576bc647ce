#include "harness.h"

#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_HELD 512

struct apd_backend *backend[BOTH];
double coarse;

static uint64_t random_seed;
static uint32_t random_drawn;

static struct {
    void *host[MAX_HELD];
    int hosts;
    void *device[MAX_HELD];
    int owner[MAX_HELD];
    int devices;
} held;

void seed_from_environment(void)
{
    const char *text = getenv("APD_TEST_SEED");

    random_seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    random_drawn = 0;
    printf("# APD_TEST_SEED=%llu\n", (unsigned long long)random_seed);
}

static uint32_t random_word(void)
{
    return apd_rng(random_seed, APD_RNG_INIT, 0, 0, random_drawn++).v[0];
}

uint32_t random_below(uint32_t n)
{
    return apd_below(random_word(), n);
}

float *floats(size_t n)
{
    float *p = calloc(n + 1, sizeof *p);

    assert_non_null(p);
    assert_true(held.hosts < MAX_HELD);
    held.host[held.hosts++] = p;
    return p;
}

float *random_floats(size_t n)
{
    float *p = floats(n);

    for (size_t i = 0; i < n; i++)
        p[i] = 2 * apd_uniform(random_word()) - 1;
    return p;
}

static void *hold_device(int b, size_t bytes)
{
    void *p = NULL;

    OK(backend[b]->ops->alloc(backend[b], bytes, &p, &err));
    assert_true(held.devices < MAX_HELD);
    held.owner[held.devices] = b;
    held.device[held.devices++] = p;
    return p;
}

void release(void)
{
    while (held.hosts > 0)
        free(held.host[--held.hosts]);
    while (held.devices > 0) {
        held.devices--;
        backend[held.owner[held.devices]]->ops->free(backend[held.owner[held.devices]],
                                                     held.device[held.devices]);
    }
}

struct both make_bytes(size_t bytes)
{
    struct both x;

    for (int b = 0; b < BOTH; b++)
        x.at[b] = hold_device(b, bytes);
    return x;
}

size_t channels(int b, int c)
{
    return backend[b]->ops->channel_elems(backend[b], c);
}

static struct both make_elements(size_t ref, size_t tested)
{
    struct both x;

    x.at[REF] = hold_device(REF, ref * backend[REF]->elem_bytes);
    x.at[TESTED] = hold_device(TESTED, tested * backend[TESTED]->elem_bytes);
    return x;
}

static size_t activation_bytes(int b, struct apd_shape shape, int n)
{
    return (size_t)n * backend[b]->ops->image_elems(backend[b], shape) * backend[b]->act_bytes;
}

struct both make_activation(struct apd_shape shape, int n, const float *nchw)
{
    struct both x;

    for (int b = 0; b < BOTH; b++)
        x.at[b] = hold_device(b, activation_bytes(b, shape, n));
    ON_BOTH(ops->activation_import(be, shape, n, nchw, x.at[b], &err));
    return x;
}

struct both make_plain(size_t n, const float *values)
{
    struct both x = make_elements(n, n);

    ON_BOTH(ops->upload_floats(be, x.at[b], values, n, &err));
    return x;
}

struct both make_channels(int c, const float *values)
{
    struct both x = make_elements(channels(REF, c), channels(TESTED, c));

    ON_BOTH(ops->upload_floats(be, x.at[b], values, (size_t)c, &err));
    return x;
}

struct both make_result(struct apd_shape shape, int n)
{
    struct both x = make_activation(shape, n, random_floats((size_t)n * apd_shape_elems(shape)));
    size_t bytes = activation_bytes(TESTED, shape, n);
    void *waste = malloc(bytes + 1);

    assert_non_null(waste);
    memset(waste, 0x3f, bytes); /* padding has to be written too */
    OK(backend[TESTED]->ops->upload(backend[TESTED], x.at[TESTED], waste, bytes, &err));
    free(waste);
    return x;
}

struct both make_plain_result(size_t n)
{
    return make_plain(n, random_floats(n));
}

int compare(const char *what, const float *ref, const float *tested, size_t n, double size,
            double tolerance)
{
    double squares = 0, rms;
    int bad = 0;

    if (tolerance >= LEAST_APPROXIMATE && tolerance < coarse)
        tolerance = coarse;
    for (size_t i = 0; i < n; i++)
        squares += (double)ref[i] * ref[i];
    rms = n > 0 ? sqrt(squares / (double)n) : 0;
    for (size_t i = 0; i < n; i++) {
        double limit = tolerance * fmax(fabs(ref[i]), fmax(rms, size));

        if (fabs((double)tested[i] - ref[i]) <= limit)
            continue;
        if (bad++ == 0)
            printf("# %s: element %zu of %zu: expected %.9g, found %.9g\n", what, i, n, ref[i],
                   tested[i]);
    }
    return bad;
}

int compare_activation(const char *what, struct apd_shape shape, int n, struct both x,
                       double tolerance)
{
    size_t elems = (size_t)n * apd_shape_elems(shape);
    float *host[BOTH] = {floats(elems), floats(elems)};

    ON_BOTH(ops->activation_export(be, shape, n, x.at[b], host[b], &err));
    return compare(what, host[REF], host[TESTED], elems, 1, fmax(tolerance, coarse)) +
           check_padding(what, shape, n, x);
}

int compare_plain(const char *what, size_t n, struct both x, double tolerance)
{
    float *host[BOTH] = {floats(n), floats(n)};

    ON_BOTH(ops->download_floats(be, host[b], x.at[b], n, &err));
    return compare(what, host[REF], host[TESTED], n, 1, tolerance);
}

/* Rows of channels() elements, of which c count. */
static int compare_rows(const char *what, int c, size_t rows, float *const host[BOTH], double size,
                        double tolerance)
{
    float *kept[BOTH] = {floats(rows * (size_t)c), floats(rows * (size_t)c)};

    for (int b = 0; b < BOTH; b++)
        for (size_t r = 0; r < rows; r++)
            memcpy(kept[b] + r * (size_t)c, host[b] + r * channels(b, c),
                   (size_t)c * sizeof(float));
    return compare(what, kept[REF], kept[TESTED], rows * (size_t)c, size, tolerance);
}

int compare_channels(const char *what, int c, struct both x, double size, double tolerance)
{
    float *host[BOTH] = {floats(channels(REF, c)), floats(channels(TESTED, c))};
    int bad = 0;

    ON_BOTH(ops->download_floats(be, host[b], x.at[b], channels(b, c), &err));
    for (size_t k = (size_t)c; k < channels(TESTED, c); k++)
        bad += host[TESTED][k] != 0;
    if (bad > 0)
        printf("# %s: padding is not zero\n", what);
    return bad + compare_rows(what, c, 1, host, size, tolerance);
}

int compare_sums(const char *what, int c, int segments, struct both x, double size,
                 double tolerance)
{
    float *host[BOTH];

    for (int b = 0; b < BOTH; b++) {
        size_t n = (size_t)segments * 2 * channels(b, c);
        double *sums = malloc(n * sizeof *sums);

        assert_non_null(sums);
        host[b] = floats(n);
        OK(backend[b]->ops->download(backend[b], sums, x.at[b], n * sizeof *sums, &err));
        for (size_t i = 0; i < n; i++)
            host[b][i] = (float)sums[i];
        free(sums);
    }
    return compare_rows(what, c, (size_t)segments * 2, host, size, tolerance);
}

int compare_moments(const char *what, int c, int segments, struct both x, double tolerance)
{
    float *host[BOTH];

    for (int b = 0; b < BOTH; b++) {
        size_t n = (size_t)segments * 2 * channels(b, c);

        host[b] = floats(n);
        OK(backend[b]->ops->download_floats(backend[b], host[b], x.at[b], n, &err));
    }
    return compare_rows(what, c, (size_t)segments * 2, host, 1, tolerance);
}

void copy_to_ref(struct apd_shape shape, int n, struct both x)
{
    float *nchw = floats((size_t)n * apd_shape_elems(shape));

    OK(backend[TESTED]->ops->activation_export(backend[TESTED], shape, n, x.at[TESTED], nchw,
                                               &err));
    OK(backend[REF]->ops->activation_import(backend[REF], shape, n, nchw, x.at[REF], &err));
}

int check_padding(const char *what, struct apd_shape shape, int n, struct both x)
{
    struct apd_backend *be = backend[TESTED];
    size_t bytes = activation_bytes(TESTED, shape, n);
    float *nchw = floats((size_t)n * apd_shape_elems(shape));
    char *found = (char *)floats(bytes / 2), *expected = found + bytes;
    void *again = hold_device(TESTED, bytes);

    OK(be->ops->activation_export(be, shape, n, x.at[TESTED], nchw, &err));
    OK(be->ops->activation_import(be, shape, n, nchw, again, &err));
    OK(be->ops->download(be, found, x.at[TESTED], bytes, &err));
    OK(be->ops->download(be, expected, again, bytes, &err));
    for (size_t i = 0; i < bytes; i += be->act_bytes) {
        int is_zero = 1; /* 0 or -0 */

        if (memcmp(found + i, expected + i, be->act_bytes) == 0)
            continue;
        for (size_t k = 0; k < be->act_bytes; k++)
            is_zero &=
                ((found[i + k] | expected[i + k]) & (k + 1 == be->act_bytes ? 0x7f : 0xff)) == 0;
        if (!is_zero) {
            printf("# %s: padding is not zero\n", what);
            return 1;
        }
    }
    return 0;
}

int segment_lists(int n, struct segments out[4])
{
    int half = n / 2;

    out[0] = (struct segments){1, {{0, n, APD_BN_MAIN}}};
    out[1] = (struct segments){2, {{0, half, APD_BN_MAIN}, {half, n - half, APD_BN_AUX}}};
    out[2] = (struct segments){3, {{0, 0, APD_BN_MAIN}, {0, n, APD_BN_AUX}, {n, 0, APD_BN_MAIN}}};
    out[3] = (struct segments){4,
                               {{0, half, APD_BN_AUX},
                                {half, 0, APD_BN_AUX},
                                {half, 1, APD_BN_MAIN},
                                {half + 1, n - half - 1, APD_BN_AUX}}};
    return n >= 3 ? 4 : 3;
}
