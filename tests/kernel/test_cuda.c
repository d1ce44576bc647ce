/* Every operation of the CUDA backend against the reference: on a GPU, or on the stand-ins.
 * usage: test_cuda fp32|tf32|fp16|bf16; exit 77: no GPU. */
#include "harness.h"
#include "kernels/cuda/cuda.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct {
    struct apd_conv_shape shape;
    int n;
} convs[] = {
    /* in, out_c, kernel, stride, pad, groups, image */
    {{{1, 9, 7}, 16, 3, 1, 1, 1, 1}, 3},   {{{3, 17, 15}, 33, 7, 2, 3, 1, 1}, 3},
    {{{3, 16, 16}, 8, 7, 2, 3, 1, 1}, 1},  {{{5, 7, 5}, 1, 3, 2, 1, 1, 0}, 3},
    {{{16, 7, 9}, 16, 3, 1, 1, 1, 0}, 5},  {{{17, 9, 7}, 33, 3, 1, 1, 1, 0}, 3},
    {{{16, 7, 7}, 33, 1, 1, 0, 1, 0}, 3},  {{{33, 7, 5}, 16, 1, 2, 0, 1, 0}, 3},
    {{{32, 7, 7}, 32, 3, 1, 1, 2, 0}, 3},  {{{128, 7, 7}, 128, 3, 2, 1, 32, 0}, 1},
    {{{32, 12, 12}, 48, 3, 1, 1, 1, 0}, 8}};

static void convolutions_match_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof convs / sizeof *convs; i++) {
        const struct apd_conv_shape *s = &convs[i].shape;

        if (check_conv(s, convs[i].n, 1e-5) != 0)
            fail_msg("%dx%dx%d -> %d, kernel %d, stride %d, groups %d, image %d, n %d", s->in.c,
                     s->in.h, s->in.w, s->out_c, s->kernel, s->stride, s->groups, s->input_is_image,
                     convs[i].n);
    }
}

static void groups_of_few_channels_are_refused(void **state)
{
    struct apd_conv_shape shape = {{12, 5, 5}, 12, 3, 1, 1, 2, 0};
    struct apd_conv *conv = NULL;
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(backend[TESTED]->ops->conv_create(backend[TESTED], &shape, &conv, &err),
                     APD_CONFIG);
    assert_non_null(strstr(err.msg, "multiples of 8"));
}

static const struct apd_shape shapes[] = {{1, 3, 3}, {5, 7, 5}, {16, 7, 7}, {33, 13, 11}};

static void batch_norm_matches_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct segments lists[4];

        for (int k = segment_lists(5, lists) - 1; k >= 0; k--)
            for (int in_place = 0; in_place < 2; in_place++)
                if (check_bn(shapes[i], 5, &lists[k], in_place) != 0)
                    fail_msg("%dx%dx%d, segments %d", shapes[i].c, shapes[i].h, shapes[i].w, k);
    }
}

static void fused_batch_norm_and_pool_is_that_of_one_by_one(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct segments lists[4];

        for (int k = segment_lists(5, lists) - 1; k >= 0; k--)
            assert_int_equal(check_bn_pool(shapes[i], 5, &lists[k]), 0);
    }
}

static void pools_match_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (check_maxpool(shapes[i], 3) + check_avgpool(shapes[i], 3) != 0)
            fail_msg("%dx%dx%d", shapes[i].c, shapes[i].h, shapes[i].w);
}

static void classifier_matches_reference(void **state)
{
    (void)state;
    assert_int_equal(check_linear(1, 1, 2), 0);
    assert_int_equal(check_linear(5, 33, 10), 0);
    assert_int_equal(check_linear(5, 64, 24), 0);
    assert_int_equal(check_linear(7, 129, 101), 0);
}

static void loss_matches_reference(void **state)
{
    (void)state;
    for (int mixed = 0; mixed < 2; mixed++) {
        assert_int_equal(check_softmax(7, 2, mixed, 0.1), 0);
        assert_int_equal(check_softmax(41, 301, mixed, mixed * 0.1), 0);
    }
}

static void images_match_reference(void **state)
{
    (void)state;
    assert_int_equal(check_images(1, 1), 0);
    assert_int_equal(check_images(5, 3 * 7 * 5), 0);
    assert_int_equal(check_mix(5, (struct apd_shape){3, 7, 5}), 0);
}

static void flat_arrays_match_reference(void **state)
{
    (void)state;
    assert_int_equal(check_flat(1), 0);
    assert_int_equal(check_flat(37), 0);
    assert_int_equal(check_flat(100001), 0);
}

/* A batch that is larger than those recorded makes the backend's own buffers grow. */
static void a_recording_goes_on_after_a_larger_batch(void **state)
{
    enum { SMALL = 2, LARGE = 40, OUT = 8 * 9 * 7 };
    const struct apd_conv_shape shape = {{3, 9, 7}, 8, 3, 1, 1, 1, 1};
    struct apd_backend *be = backend[TESTED];
    const struct apd_backend_ops *ops = be->ops;
    struct apd_recording *recording = NULL;
    struct apd_conv *conv = NULL;
    struct apd_err err = {0};
    float host[LARGE * 3 * 9 * 7], first[SMALL * OUT], again[SMALL * OUT];
    size_t dst_bytes = LARGE * ops->image_elems(be, (struct apd_shape){8, 9, 7}) * be->act_bytes;
    void *src, *w, *dst;

    (void)state;
    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        host[i] = (float)(i % 17) / 16 - 0.5f;
    assert_int_equal(ops->conv_create(be, &shape, &conv, &err), APD_OK);
    assert_int_equal(ops->alloc(be, sizeof host, &src, &err), APD_OK);
    assert_int_equal(ops->alloc(be, ops->conv_weight_elems(conv) * be->elem_bytes, &w, &err),
                     APD_OK);
    assert_int_equal(ops->alloc(be, dst_bytes, &dst, &err), APD_OK);
    assert_int_equal(ops->upload_floats(be, src, host, sizeof host / sizeof *host, &err), APD_OK);
    assert_int_equal(ops->conv_import(be, conv, host, w, &err), APD_OK);
    assert_int_equal(ops->weights_changed(be, w, ops->conv_weight_elems(conv), &err), APD_OK);
    assert_int_equal(ops->conv_prepare(be, conv, SMALL, 0, 0, &err), APD_OK);
    assert_int_equal(ops->conv_forward(be, conv, SMALL, src, w, dst, &err), APD_OK);
    assert_int_equal(
        ops->activation_export(be, (struct apd_shape){8, 9, 7}, SMALL, dst, first, &err), APD_OK);

    assert_int_equal(ops->record_begin(be, &err), APD_OK);
    assert_int_equal(ops->conv_forward(be, conv, SMALL, src, w, dst, &err), APD_OK);
    assert_int_equal(ops->record_end(be, &recording, &err), APD_OK);
    assert_int_equal(ops->conv_prepare(be, conv, LARGE, 0, 0, &err), APD_OK);
    assert_int_equal(ops->conv_forward(be, conv, LARGE, src, w, dst, &err), APD_OK);
    assert_int_equal(ops->zero(be, dst, dst_bytes, &err), APD_OK);
    assert_int_equal(ops->replay(be, recording, &err), APD_OK);
    assert_int_equal(
        ops->activation_export(be, (struct apd_shape){8, 9, 7}, SMALL, dst, again, &err), APD_OK);
    assert_memory_equal(first, again, sizeof first);

    ops->recording_destroy(be, &recording);
    ops->conv_destroy(be, &conv);
    ops->free(be, src);
    ops->free(be, w);
    ops->free(be, dst);
}

/* In the order of training: the next images set out before these are read, and nobody waits. */
static void staged_images_are_those_of_their_call(void **state)
{
    enum { STEPS = 40, BYTES = 1024 };
    static uint8_t host[STEPS + 1][BYTES];
    struct both x = make_plain_result((size_t)STEPS * BYTES);
    const void *staged[2][BOTH];

    (void)state;
    for (int k = 0; k <= STEPS; k++)
        for (int i = 0; i < BYTES; i++)
            host[k][i] = (uint8_t)random_below(256);
    OK(backend[TESTED]->ops->pin(backend[TESTED], host, sizeof host, &err));
    ON_BOTH(ops->stage(be, host[0], BYTES, &staged[0][b], &err));
    for (int k = 0; k < STEPS; k++) {
        ON_BOTH(ops->stage(be, host[k + 1], BYTES, &staged[(k + 1) % 2][b], &err));
        ON_BOTH(ops->input_pack(be, 1, BYTES, staged[k % 2][b], NULL,
                                (float *)x.at[b] + (size_t)k * BYTES, NULL, &err));
    }
    assert_int_equal(compare_plain("staged", (size_t)STEPS * BYTES, x, 0), 0);
    backend[TESTED]->ops->unpin(backend[TESTED], host);
    release();
}

static _Atomic int has_begun;

static void CUDART_CB sleep_on_stream(void *arg)
{
    const struct timespec pause = {.tv_nsec = 200000000};

    (void)arg;
    has_begun = 1;
    (void)nanosleep(&pause, NULL);
}

/* The stand-ins have no thread of their own for it. */
static void *run_stream(void *stream)
{
    (void)cudaStreamSynchronize(stream);
    return NULL;
}

static double clock_s(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void waiting_leaves_the_core_to_others(void **state)
{
    struct apd_backend *be = backend[TESTED];
    struct apd_err err = {0};
    double cpu_s, wall_s;
    cudaStream_t other;
    cudaEvent_t slept;
    pthread_t thread;
    void *device;
    float host;

    (void)state;
    assert_int_equal(be->ops->alloc(be, sizeof host, &device, &err), APD_OK);
    assert_int_equal(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaEventCreateWithFlags(&slept, cudaEventDisableTiming), cudaSuccess);
    assert_int_equal(cudaLaunchHostFunc(other, sleep_on_stream, NULL), cudaSuccess);
    assert_int_equal(cudaEventRecord(slept, other), cudaSuccess);
    assert_int_equal(cudaStreamWaitEvent(apd_cuda_stream(be), slept, 0), cudaSuccess);
    assert_int_equal(pthread_create(&thread, NULL, run_stream, other), 0);
    while (!has_begun)
        sched_yield();
    wall_s = clock_s(CLOCK_MONOTONIC);
    cpu_s = clock_s(CLOCK_THREAD_CPUTIME_ID);
    assert_int_equal(be->ops->download(be, &host, device, sizeof host, &err), APD_OK);
    cpu_s = clock_s(CLOCK_THREAD_CPUTIME_ID) - cpu_s;
    wall_s = clock_s(CLOCK_MONOTONIC) - wall_s;
    pthread_join(thread, NULL);
    assert_true(wall_s > 0.1);
    assert_true(cpu_s < wall_s / 2);
    assert_int_equal(cudaEventDestroy(slept), cudaSuccess);
    assert_int_equal(cudaStreamDestroy(other), cudaSuccess);
    be->ops->free(be, device);
}

static const struct apd_backend_ops *right_ops;

static void a_wrong_operation_is_caught(void **state)
{
    (void)state;
    assert_true(check_wrong_bn() > 0);
    release();
}

/* Weights and momentum change places. */
static enum apd_code swapped_sgd(struct apd_backend *be, size_t n, const struct apd_sgd *sgd,
                                 const void *d_w, void *w, void *m, struct apd_err *err)
{
    return right_ops->sgd(be, n, sgd, d_w, m, w, err);
}

static void swapped_buffers_are_caught(void **state)
{
    struct apd_backend_ops wrong = *backend[TESTED]->ops;
    int bad;

    (void)state;
    right_ops = backend[TESTED]->ops;
    wrong.sgd = swapped_sgd;
    backend[TESTED]->ops = &wrong;
    bad = check_flat(100);
    backend[TESTED]->ops = right_ops;
    assert_true(bad > 0);
}

/* The backend sees the step on other weights than it was told of. */
static enum apd_code sgd_elsewhere(struct apd_backend *be, size_t n, const struct apd_sgd *sgd,
                                   const void *d_w, void *w, void *m, struct apd_err *err)
{
    size_t bytes = n * be->elem_bytes;
    void *elsewhere;

    APD_TRY(right_ops->alloc(be, bytes, &elsewhere, err));
    APD_TRY(right_ops->copy(be, elsewhere, w, bytes, err));
    APD_TRY(right_ops->sgd(be, n, sgd, d_w, elsewhere, m, err));
    APD_TRY(right_ops->copy(be, w, elsewhere, bytes, err));
    right_ops->free(be, elsewhere);
    return APD_OK;
}

static void a_stale_copy_of_weights_is_caught(void **state)
{
    struct apd_backend_ops wrong = *backend[TESTED]->ops;
    int bad;

    (void)state;
    right_ops = backend[TESTED]->ops;
    wrong.sgd = sgd_elsewhere;
    backend[TESTED]->ops = &wrong;
    bad = check_conv(&convs[0].shape, convs[0].n, 1e-5);
    backend[TESTED]->ops = right_ops;
    assert_true(bad > 0);
}

static void weights_without_a_copy_are_a_bug(void **state)
{
    struct apd_backend *be = backend[TESTED];
    const struct apd_backend_ops *ops = be->ops;
    struct apd_conv *conv = NULL;
    struct apd_err err = {0};
    void *w;

    (void)state;
    assert_int_equal(ops->conv_create(be, &convs[0].shape, &conv, &err), APD_OK);
    assert_int_equal(ops->alloc(be, 2 * sizeof(float), &w, &err), APD_OK);
    assert_int_equal(ops->weights_changed(be, w, 1, &err), APD_OK);
    assert_int_equal(ops->conv_forward(be, conv, 1, w, (float *)w + 1, w, &err), APD_BUG);
    ops->conv_destroy(be, &conv);
    ops->free(be, w);
}

int main(int argc, char **argv)
{
    const char *precision = argc > 1 ? argv[1] : "fp32";
    struct apd_cuda_options options = {.tf32 = strcmp(precision, "tf32") == 0, .graphs = 1};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_match_reference),
        cmocka_unit_test(groups_of_few_channels_are_refused),
        cmocka_unit_test(batch_norm_matches_reference),
        cmocka_unit_test(fused_batch_norm_and_pool_is_that_of_one_by_one),
        cmocka_unit_test(pools_match_reference),
        cmocka_unit_test(classifier_matches_reference),
        cmocka_unit_test(loss_matches_reference),
        cmocka_unit_test(images_match_reference),
        cmocka_unit_test(staged_images_are_those_of_their_call),
        cmocka_unit_test(flat_arrays_match_reference),
        cmocka_unit_test(waiting_leaves_the_core_to_others),
        cmocka_unit_test(a_recording_goes_on_after_a_larger_batch),
        cmocka_unit_test(a_wrong_operation_is_caught),
        cmocka_unit_test(swapped_buffers_are_caught),
    };
    const struct CMUnitTest sixteen_bits[] = {
        cmocka_unit_test(a_stale_copy_of_weights_is_caught),
        cmocka_unit_test(weights_without_a_copy_are_a_bug),
    };
    struct apd_err err = {0};
    int failed;

    if (strcmp(precision, "fp16") == 0)
        options.type = APD_CUDA_F16;
    if (strcmp(precision, "bf16") == 0)
        options.type = APD_CUDA_BF16;
    /* Roundings of 11, 11 and 8 bits, a few of them one after another. */
    coarse = options.type == APD_CUDA_BF16                  ? 4e-2
             : options.type == APD_CUDA_F16 || options.tf32 ? 5e-3
                                                            : 2e-5;
    if (apd_backend_cuda(&options, &backend[TESTED], &err) != APD_OK) {
        fprintf(stderr, "skipped: %s\n", err.msg);
        return 77;
    }
    if (apd_backend_ref(&backend[REF], &err) != APD_OK)
        return 1;
    seed_from_environment();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (backend[TESTED]->act_bytes == 2)
        failed += cmocka_run_group_tests(sixteen_bits, NULL, NULL);
    for (int b = 0; b < BOTH; b++)
        backend[b]->ops->destroy(backend[b]);
    return failed;
}
