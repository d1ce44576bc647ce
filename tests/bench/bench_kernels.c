/* Times the operations of a training step of ResNet-18, width 16, on 28x28 images, batch 40: the
 * median of several rounds each. Not a test. usage: bench_kernels [THREADS [ISA [CONV_ALGO
 * [BATCH]]]]; -v as last argument prints the oneDNN implementation of every convolution. */
#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "kernels/backend.h"
#include "kernels/shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS  15
#define ROUND_S 0.004

static struct apd_backend *be;
static int batch = 40;
static void *a, *b, *c; /* three activations, large enough for any shape here */
static struct apd_conv *conv;
static void *w, *d_w;
static struct apd_shape shape;
static struct apd_segment seg[2];
static void *sums, *moments, *gamma_beta;
static double count[2];

#define MUST(call)                                                                                 \
    do {                                                                                           \
        struct apd_err err = {0};                                                                  \
        if ((call) != APD_OK) {                                                                    \
            fprintf(stderr, "%s: %s\n", #call, err.msg);                                           \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static void *device(size_t bytes)
{
    void *p = NULL;

    MUST(be->ops->alloc(be, bytes, &p, &err));
    return p;
}

static int compare_doubles(const void *x, const void *y)
{
    double p = *(const double *)x, q = *(const double *)y;

    return (p > q) - (p < q);
}

/* Median seconds of one call. */
static double time_of(void (*op)(void))
{
    double took[ROUNDS];

    op();
    for (int round = 0; round < ROUNDS; round++) {
        double start = apd_now_s(), now = start;
        int calls = 0;

        for (; now - start < ROUND_S; calls++, now = apd_now_s())
            op();
        took[round] = (now - start) / calls;
    }
    qsort(took, ROUNDS, sizeof *took, compare_doubles);
    return took[ROUNDS / 2];
}

static void conv_forward(void)
{
    MUST(be->ops->conv_forward(be, conv, batch, a, w, b, &err));
}

static void conv_backward_data(void)
{
    MUST(be->ops->conv_backward_data(be, conv, batch, b, w, a, &err));
}

static void conv_backward_weights(void)
{
    MUST(be->ops->conv_backward_weights(be, conv, batch, a, b, d_w, &err));
}

static double bench_conv(const struct apd_conv_shape *s)
{
    struct apd_shape out = apd_conv_out(s);
    double flop = 2.0 * batch * (double)apd_conv_oihw_elems(s) * out.h * out.w;
    const struct {
        const char *name;
        void (*run)(void);
    } ops[] = {{"forward", conv_forward},
               {"backward data", conv_backward_data},
               {"backward weights", conv_backward_weights}};
    double total = 0;

    MUST(be->ops->conv_create(be, s, &conv, &err));
    MUST(be->ops->conv_prepare(be, conv, batch, 1, 1, &err));
    w = device(be->ops->conv_weight_elems(conv) * be->elem_bytes);
    d_w = device(be->ops->conv_weight_elems(conv) * be->elem_bytes);
    for (int i = 0; i < 3; i++) {
        double t = time_of(ops[i].run);

        printf("conv %3d->%3d k%d s%d %2dx%-2d  %-17s %9.0f ns %7.1f GFLOP/s\n", s->in.c, s->out_c,
               s->kernel, s->stride, s->in.h, s->in.w, ops[i].name, t * 1e9, flop / t * 1e-9);
        total += t;
    }
    be->ops->free(be, w);
    be->ops->free(be, d_w);
    be->ops->conv_destroy(be, &conv);
    return total;
}

static void bn_sums(void)
{
    MUST(be->ops->bn_sums(be, shape, seg, 2, a, sums, 2 * be->ops->channel_elems(be, shape.c),
                          &err));
}

static void bn_moments(void)
{
    MUST(be->ops->bn_moments(be, shape.c, 2, sums, 2 * be->ops->channel_elems(be, shape.c), count,
                             1e-5, moments, &err));
}

static struct apd_bn bn(void)
{
    return (struct apd_bn){
        shape, seg, 2, a, moments, {gamma_beta, gamma_beta}, {gamma_beta, gamma_beta}};
}

static void bn_forward(void)
{
    struct apd_bn of = bn();

    MUST(be->ops->bn_forward(be, &of, NULL, NULL, 1, b, NULL, &err));
}

static void bn_forward_add(void)
{
    struct apd_bn of = bn();

    MUST(be->ops->bn_forward(be, &of, NULL, c, 1, b, NULL, &err));
}

static void bn_backward_sums(void)
{
    const struct apd_relu relu = {.y = b};
    struct apd_bn of = bn();

    MUST(be->ops->bn_backward_sums(be, &of, NULL, &relu, c, NULL, c, sums, NULL, &err));
}

static void bn_backward_data(void)
{
    struct apd_bn of = bn();

    MUST(be->ops->bn_backward_data(be, &of, NULL, c, sums, NULL, count, 1, c, NULL, &err));
}

static double bench_bn(struct apd_shape s)
{
    const struct {
        const char *name;
        void (*run)(void);
        int streams; /* tensors read and written */
    } ops[] = {
        {"bn_sums", bn_sums, 1},
        {"bn_moments", bn_moments, 0},
        {"bn_forward relu", bn_forward, 2},
        {"bn_forward add relu", bn_forward_add, 3},
        {"bn_backward_sums", bn_backward_sums, 4},
        {"bn_backward_data", bn_backward_data, 3},
    };
    double bytes = (double)be->ops->image_elems(be, s) * batch * (double)be->elem_bytes, total = 0;

    shape = s;
    for (int k = 0; k < 2; k++)
        count[k] = (double)seg[k].count * s.h * s.w;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        double t = time_of(ops[i].run);

        printf("bn %3dx%2dx%-2d  %-21s %9.0f ns %7.1f GB/s\n", s.c, s.h, s.w, ops[i].name, t * 1e9,
               ops[i].streams * bytes / t * 1e-9);
        if (ops[i].run != bn_forward_add)
            total += t;
    }
    return total;
}

static const size_t parameters = 700000;

static void sgd(void)
{
    static const struct apd_sgd p = {.grad_scale = 1, .lr = 1e-9, .momentum = 0.9};

    MUST(be->ops->sgd(be, parameters, &p, a, b, c, &err));
}

static uint8_t *image_bytes;
static uint64_t samples[4096];
static uint32_t epochs[4096];

static void input_pack(void)
{
    struct apd_noise noise = {samples, epochs, 1, APD_RNG_NOISE, 0.01};

    MUST(be->ops->input_pack(be, batch, 784, image_bytes, &noise, a, b, &err));
}

static void attack_step(void)
{
    MUST(be->ops->attack_step(be, batch, 784, a, b, c, 0.01, 0.01, NULL, b, &err));
}

static void linear_forward(void)
{
    MUST(be->ops->linear_forward(be, batch, 128, 10, a, b, c, c, &err));
}

static void avgpool_forward(void)
{
    MUST(be->ops->avgpool_forward(be, (struct apd_shape){128, 4, 4}, batch, a, b, &err));
}

static void softmax_ce(void)
{
    struct apd_targets targets = {.label = sums, .weight = gamma_beta};
    double loss[2 * APD_LOSS_DOUBLES];

    MUST(be->ops->softmax_ce(be, batch, 10, a, &targets, seg, 2, loss, b, &err));
}

static void bench_rest(void)
{
    const struct {
        const char *name;
        void (*run)(void);
    } ops[] = {{"sgd, 700,000 weights", sgd},      {"input_pack with noise", input_pack},
               {"attack_step", attack_step},       {"avgpool_forward", avgpool_forward},
               {"linear_forward", linear_forward}, {"softmax_ce", softmax_ce}};

    MUST(be->ops->zero(be, sums, 4096, &err));
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        printf("%-24s %9.0f ns\n", ops[i].name, time_of(ops[i].run) * 1e9);
}

static void fill(void *activation, size_t n)
{
    float *values = malloc(n * sizeof *values);

    if (values == NULL)
        exit(1);
    for (size_t i = 0; i < n; i++)
        values[i] = 2 * apd_uniform((uint32_t)apd_mix64(i + 1)) - 1;
    MUST(be->ops->upload_floats(be, activation, values, n, &err));
    free(values);
}

static void make_arrays(void)
{
    size_t largest = (size_t)batch * be->ops->image_elems(be, (struct apd_shape){16, 28, 28});

    if (largest < parameters)
        largest = parameters;
    a = device(largest * be->elem_bytes);
    b = device(largest * be->elem_bytes);
    c = device(largest * be->elem_bytes);
    fill(a, largest);
    fill(b, largest);
    fill(c, largest);
    sums = device(1 << 20);
    moments = device(1 << 20);
    gamma_beta = device(1 << 20);
    fill(gamma_beta, 4096);
    image_bytes = calloc((size_t)batch, 784);
    seg[0] = (struct apd_segment){0, batch - batch / 5, APD_BN_MAIN};
    seg[1] = (struct apd_segment){batch - batch / 5, batch / 5, APD_BN_AUX};
}

int main(int argc, char **argv)
{
    static const struct {
        struct apd_conv_shape shape;
        int times; /* in the network */
    } convs[] = {
        {{{1, 28, 28}, 16, 3, 1, 1, 1, 1}, 1},  {{{16, 28, 28}, 16, 3, 1, 1, 1, 0}, 4},
        {{{16, 28, 28}, 32, 3, 2, 1, 1, 0}, 1}, {{{32, 14, 14}, 32, 3, 1, 1, 1, 0}, 3},
        {{{16, 28, 28}, 32, 1, 2, 0, 1, 0}, 1}, {{{32, 14, 14}, 64, 3, 2, 1, 1, 0}, 1},
        {{{64, 7, 7}, 64, 3, 1, 1, 1, 0}, 3},   {{{32, 14, 14}, 64, 1, 2, 0, 1, 0}, 1},
        {{{64, 7, 7}, 128, 3, 2, 1, 1, 0}, 1},  {{{128, 4, 4}, 128, 3, 1, 1, 1, 0}, 3},
        {{{64, 7, 7}, 128, 1, 2, 0, 1, 0}, 1},
    };
    static const struct {
        struct apd_shape shape;
        int times;
    } bns[] = {{{16, 28, 28}, 5}, {{32, 14, 14}, 5}, {{64, 7, 7}, 5}, {{128, 4, 4}, 5}};
    int verbose = argc > 1 && strcmp(argv[argc - 1], "-v") == 0;
    struct apd_cpu_options options = {
        .threads = argc > 1 && atoi(argv[1]) > 0 ? atoi(argv[1]) : 2,
        .isa = argc > 2 ? argv[2] : "auto",
        .conv_algo = argc > 3 ? argv[3] : "auto",
    };
    double conv_total = 0, bn_total = 0;

    if (argc > 4 && atoi(argv[4]) > 4 && atoi(argv[4]) <= 4096)
        batch = atoi(argv[4]);
    apd_log_init("bench", -1, verbose ? APD_LOG_DEBUG : APD_LOG_INFO);
    MUST(apd_backend_cpu(&options, &be, &err));
    make_arrays();
    for (size_t i = 0; i < sizeof convs / sizeof *convs; i++)
        conv_total += convs[i].times * bench_conv(&convs[i].shape);
    for (size_t i = 0; i < sizeof bns / sizeof *bns; i++)
        bn_total += bns[i].times * bench_bn(bns[i].shape);
    bench_rest();
    printf("total of the network: convolutions %.2f ms, batch norms %.2f ms\n", conv_total * 1e3,
           bn_total * 1e3);
    be->ops->destroy(be);
    free(image_bytes);
    return 0;
}
