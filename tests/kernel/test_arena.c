/* Memory of the CUDA backend that is planned: on a GPU, or on the stand-ins. Exit 77: no GPU. */
#include "harness.h"
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 3, CLASSES = 10, FEATURES = 24 };

static const struct apd_conv_shape stem = {{3, 9, 7}, 8, 3, 1, 1, 1, 1};
static const struct apd_demand demand = {
    .rows = 50, .channels = 24, .segments = 2, .weights = 8 * 3 * 3 * 8, .stage_bytes = 1000};

static int setup(void **state)
{
    struct apd_cuda_options options = {.type = APD_CUDA_F16, .graphs = 1};
    struct apd_err err = {0};

    return apd_backend_cuda(&options, (struct apd_backend **)state, &err) != APD_OK;
}

static int teardown(void **state)
{
    struct apd_backend *be = *state;

    be->ops->destroy(be);
    return 0;
}

/* What a user of the backend makes. */
struct made {
    struct apd_conv *conv;
    void *a, *b;
};

static void make(struct apd_backend *be, struct made *out)
{

    OK(be->ops->conv_create(be, &stem, &out->conv, &err));
    OK(be->ops->alloc(be, 1001, &out->a, &err));
    OK(be->ops->alloc(be, 0, &out->b, &err));
    OK(be->ops->conv_prepare(be, out->conv, N, 1, 1, &err));
    OK(be->ops->linear_prepare(be, N, FEATURES, CLASSES, 1, 1, &err));
    OK(apd_prepare(be, &demand, &err));
}

static void unmake(struct apd_backend *be, struct made *made)
{
    be->ops->free(be, made->a);
    be->ops->free(be, made->b);
    be->ops->conv_destroy(be, &made->conv);
}

static void measure(struct apd_backend *be)
{
    struct made made;

    be->ops->plan_begin(be);
    make(be, &made);
    unmake(be, &made);
}

static void plan(struct apd_backend *be, struct apd_memory_plan *out)
{

    measure(be);
    *out = (struct apd_memory_plan){.activations = 1001, .weights = 100};
    OK(be->ops->plan_end(be, out, &err));
}

static void the_same_made_again_fits_and_is_zero(void **state)
{
    struct apd_backend *be = *state;
    struct apd_memory_plan planned;
    struct made made;
    char text[1001];

    plan(be, &planned);
    assert_true(planned.activations + planned.weights + planned.workspace + planned.other ==
                planned.needed);
    for (int round = 0; round < 3; round++) { /* in the memory of the round before */
        make(be, &made);
        assert_int_equal((uintptr_t)made.a % 256, 0);
        assert_int_equal((uintptr_t)made.b % 256, 0);
        assert_true((char *)made.b >= (char *)made.a + sizeof text);
        OK(be->ops->download(be, text, made.a, sizeof text, &err));
        for (size_t i = 0; i < sizeof text; i++)
            assert_int_equal(text[i], 0);
        memset(text, 1, sizeof text);
        OK(be->ops->upload(be, made.a, text, sizeof text, &err));
        unmake(be, &made);
    }
}

static void operations_find_what_was_prepared(void **state)
{
    enum { PIXELS = 3 * 9 * 7, OUT = 8 * 9 * 7 };
    struct apd_backend *be = *state;
    const struct apd_backend_ops *ops = be->ops;
    struct apd_memory_plan planned;
    struct apd_err why = {0};
    struct made made;
    void *x, *y, *w;
    size_t weights;

    be->ops->plan_begin(be);
    make(be, &made);
    weights = ops->conv_weight_elems(made.conv) * be->elem_bytes;
    OK(ops->alloc(be, sizeof(float) * N * PIXELS, &x, &err));
    OK(ops->alloc(be, sizeof(float) * N * OUT, &y, &err));
    OK(ops->alloc(be, weights, &w, &err));
    ops->free(be, x);
    ops->free(be, y);
    ops->free(be, w);
    unmake(be, &made);
    planned = (struct apd_memory_plan){0};
    OK(be->ops->plan_end(be, &planned, &err));

    make(be, &made);
    OK(ops->alloc(be, sizeof(float) * N * PIXELS, &x, &err));
    OK(ops->alloc(be, sizeof(float) * N * OUT, &y, &err));
    OK(ops->alloc(be, weights, &w, &err));
    OK(ops->weights_changed(be, w, ops->conv_weight_elems(made.conv), &err));
    OK(ops->conv_forward(be, made.conv, N, x, w, y, &err));
    OK(ops->conv_backward_weights(be, made.conv, N, x, y, w, &err));
    OK(ops->conv_backward_data(be, made.conv, N, y, w, x, &err));
    OK(ops->nonfinite(be, 8, w, x, &err));
    /* Of what was prepared with 3 images there are no 4. */
    assert_int_equal(ops->conv_forward(be, made.conv, N + 1, x, w, y, &why), APD_BUG);
    assert_non_null(strstr(why.msg, "buffer"));
    ops->free(be, w);
    ops->free(be, x);
    ops->free(be, y);
    unmake(be, &made);
}

static void memory_beyond_the_plan_is_refused_by_name(void **state)
{
    struct apd_backend *be = *state;
    struct apd_memory_plan planned;
    struct apd_demand more = demand;
    struct apd_err why = {0};
    struct made made;
    void *c;

    plan(be, &planned);
    make(be, &made);
    assert_int_equal(be->ops->alloc(be, 1, &c, &why), APD_BUG);
    assert_non_null(strstr(why.msg, "1 bytes of GPU memory wanted beyond the plan"));
    more.stage_bytes++;
    assert_int_equal(apd_prepare(be, &more, &why), APD_BUG);
    assert_non_null(strstr(why.msg, "1001 bytes of GPU memory wanted in buffer"));
    unmake(be, &made);
}

static void what_does_not_fit_is_refused_with_its_parts(void **state)
{
    struct apd_memory_plan planned = {.activations = (size_t)3 << 40};
    struct apd_backend *be = *state;
    struct apd_err why = {0};
    void *large;

    be->ops->plan_begin(be);
    OK(be->ops->alloc(be, planned.activations, &large, &err));
    assert_int_equal(be->ops->plan_used(be), planned.activations);
    be->ops->free(be, large);
    assert_int_equal(be->ops->plan_end(be, &planned, &why), APD_DEVICE);
    assert_non_null(strstr(why.msg, "3146240 MiB are needed (activations 3145728, "));
    assert_non_null(strstr(why.msg, "train.recompute"));
    assert_null(strchr(why.msg, '\n'));
    /* The plan is gone, the backend goes on without. */
    OK(be->ops->alloc(be, 100, &large, &err));
    OK(be->ops->zero(be, large, 100, &err));
    be->ops->free(be, large);
}

static void a_forgotten_plan_leaves_the_backend_as_it_was(void **state)
{
    struct apd_backend *be = *state;
    struct made made;
    char text[1001];

    measure(be);
    OK(be->ops->plan_end(be, NULL, &err));
    make(be, &made);
    OK(be->ops->download(be, text, made.a, sizeof text, &err));
    unmake(be, &made);
}

static void what_is_left_after_measuring_is_told(void **state)
{
    struct apd_memory_plan planned = {0};
    struct apd_backend *be = *state;
    struct apd_err why = {0};
    void *left;

    be->ops->plan_begin(be);
    OK(be->ops->alloc(be, 100, &left, &err));
    assert_int_equal(be->ops->plan_end(be, &planned, &why), APD_BUG);
    assert_non_null(strstr(why.msg, "256 bytes were not freed"));
}

/* One prepare() is for all operations within it. */
static void scratch_suffices_for_fewer_channels_and_segments(void **state)
{
    (void)state;
    for (int c = 1; c <= 2200; c += 7)
        for (int s = 1; s <= APD_MAX_SEGMENTS; s += 3) {
            assert_true(apd_cuda_scratch_bytes(c, s) <= apd_cuda_scratch_bytes(c + 7, s));
            assert_true(apd_cuda_scratch_bytes(c, s) <= apd_cuda_scratch_bytes(c, s + 3));
        }
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(the_same_made_again_fits_and_is_zero),
        CASE(operations_find_what_was_prepared),
        CASE(memory_beyond_the_plan_is_refused_by_name),
        CASE(what_does_not_fit_is_refused_with_its_parts),
        CASE(a_forgotten_plan_leaves_the_backend_as_it_was),
        CASE(what_is_left_after_measuring_is_told),
        cmocka_unit_test(scratch_suffices_for_fewer_channels_and_segments),
    };
    struct apd_err err = {0};
    int gpus;

    if (apd_cuda_devices(&gpus, &err) != APD_OK) {
        fprintf(stderr, "skipped: %s\n", err.msg);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
