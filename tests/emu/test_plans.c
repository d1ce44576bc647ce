/* Plans by the genuine cuDNN for a GPU that is not there: every convolution of every network that
 * the project offers, as the CUDA backend asks for it, has an engine that is allowed.
 *
 * usage: test_plans DEVICE.json TABLE.csv; writes a line for each plan. Exit 77: this cuDNN cannot
 * plan without a device. */
#include "base/clock.h"
#include "base/fs.h"
#include "tests/emu/dnn_case.h"
#include "tests/support/scratch.h"
#include "worker/model/arch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((size_t)1 << 20)

/* Images of the passes: the part of a batch of 256 that is attacked (1 in 5), and the batch, which
 * is also that of evaluation. */
enum { ATTACKED = 51, BATCH = 256 };

/* What a plan may want of workspace: input and output once more, in another layout; the filters
 * transformed for Winograd's F(4x4, 3x3), whose tiles of 6 x 6 are 4 times the filter's 3 x 3; and
 * partial sums of a reduction that is split among the processors, which do not grow with the batch.
 * Of cuDNN 9.19 the third part is 88 MiB at most. */
enum { WINOGRAD = 4 };
static const size_t partial_bytes = 128 * MIB;

static char *device_json;
static const char *device_name, *table_path;

static const struct precision {
    const char *name;
    enum apd_cuda_type type;
    int tf32;
} precisions[] = {
    {"f16", APD_CUDA_F16, 0},
    {"bf16", APD_CUDA_BF16, 0},
    {"f32", APD_CUDA_F32, 0},
    {"tf32", APD_CUDA_F32, 1},
};
enum { PRECISIONS = sizeof precisions / sizeof *precisions };

static struct apd_dnn *new_dnn(const char *engines)
{
    struct apd_dnn_options options = {.device_json = device_json, .engines = engines};
    struct apd_dnn *dnn = NULL;
    struct apd_err err;

    GOOD(apd_dnn_create(&options, &dnn, &err));
    return dnn;
}

/* ---- all problems ---- */

enum { MAX_PLANS = 16384 };

struct survey {
    struct apd_dnn *dnn;
    FILE *table;
    struct apd_dnn_problem seen[MAX_PLANS];
    char name[MAX_PLANS][sizeof((struct apd_dnn_plan_info *)0)->name];
    size_t plans;
    size_t largest[PRECISIONS];
    char where[PRECISIONS][160];
};

static int is_new(struct survey *survey, const struct apd_dnn_problem *p)
{
    for (size_t i = 0; i < survey->plans; i++)
        if (memcmp(&survey->seen[i], p, sizeof *p) == 0)
            return 0;
    assert_true(survey->plans < MAX_PLANS);
    survey->seen[survey->plans++] = *p;
    return 1;
}

static size_t allowed_bytes(const struct apd_dnn_problem *p)
{
    size_t oh = (size_t)((p->h + 2 * p->pad - p->kernel) / p->stride + 1);
    size_t ow = (size_t)((p->w + 2 * p->pad - p->kernel) / p->stride + 1);
    size_t in = (size_t)p->n * (size_t)p->h * (size_t)p->w * (size_t)p->c;
    size_t out = (size_t)p->n * oh * ow * (size_t)p->k;
    size_t filters = (size_t)p->k * (size_t)(p->kernel * p->kernel) * (size_t)(p->c / p->groups);

    return partial_bytes + (in + out + WINOGRAD * filters) * (p->type == APD_CUDA_F32 ? 4 : 2);
}

static void plan_one(struct survey *survey, int precision, struct apd_dnn_problem p,
                     const char *layer)
{
    static const char *const ops[APD_DNN_OPS] = {"forward", "backward_data", "backward_filter"};
    struct apd_dnn_plan_info info;
    char line[160];

    p.type = precisions[precision].type;
    p.tf32 = precisions[precision].tf32;
    if (!is_new(survey, &p))
        return;
    info = dnn_plan_info(survey->dnn, &p);
    memcpy(survey->name[survey->plans - 1], info.name, sizeof info.name);
    (void)snprintf(line, sizeof line, "%s,%s,%s,%d,%d,%d,%d,%d,%d,%d,%d", layer,
                   precisions[precision].name, ops[p.op], p.n, p.h, p.w, p.c, p.k, p.kernel,
                   p.stride, p.groups);
    fprintf(survey->table, "%s,%s,%d,%d,%d,%zu\n", line, info.name, info.fallback, info.tensor_core,
            info.compiled_late, info.workspace_bytes);
    if (!info.deterministic)
        fail_msg("%s: %s varies", line, info.name);
    if (p.type == APD_CUDA_F32 && !p.tf32 && info.tensor_core)
        fail_msg("%s: %s rounds floats", line, info.name);
    if (info.workspace_bytes > allowed_bytes(&p))
        fail_msg("%s: %s wants %zu MiB of workspace, more than %zu", line, info.name,
                 info.workspace_bytes / MIB, allowed_bytes(&p) / MIB);
    if (info.workspace_bytes > survey->largest[precision]) {
        survey->largest[precision] = info.workspace_bytes;
        (void)snprintf(survey->where[precision], sizeof survey->where[precision], "%s", line);
    }
}

/* All three operations for both batches; those of the stem's data are for attacks. */
static void plan_layer(struct survey *survey, const struct apd_dnn_problem *shape,
                       const char *layer)
{
    static const int batches[] = {ATTACKED, BATCH};

    for (int precision = 0; precision < PRECISIONS; precision++)
        for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
            for (int op = 0; op < APD_DNN_OPS; op++) {
                struct apd_dnn_problem p = *shape;

                p.op = (enum apd_dnn_op)op;
                p.n = batches[i];
                plan_one(survey, precision, p, layer);
            }
}

static int rounded_up(int channels)
{
    return (channels + APD_CUDA_CHANNELS - 1) / APD_CUDA_CHANNELS * APD_CUDA_CHANNELS;
}

static void plan_network(struct survey *survey, const char *name, int small_stem)
{
    struct apd_shape image = {3, small_stem ? 32 : 224, small_stem ? 32 : 224};
    struct apd_arch *arch = calloc(1, sizeof *arch);
    struct apd_dnn_problem head = {.h = 1, .w = 1, .kernel = 1, .stride = 1, .groups = 1};
    char layer[96];
    struct apd_err err;

    assert_non_null(arch);
    GOOD(apd_arch_build(name, 64, small_stem, image, 1000, arch, &err));
    for (int i = 0; i < arch->layer_count; i++) {
        const struct apd_conv_shape *s = &arch->layer[i].shape;
        const struct apd_dnn_problem p = {.h = s->in.h,
                                          .w = s->in.w,
                                          .c = rounded_up(s->in.c),
                                          .k = rounded_up(s->out_c),
                                          .kernel = s->kernel,
                                          .stride = s->stride,
                                          .pad = s->pad,
                                          .groups = s->groups};

        (void)snprintf(layer, sizeof layer, "%s %d px,%s", name, image.h, arch->layer[i].conv);
        plan_layer(survey, &p, layer);
    }
    head.c = rounded_up(arch->features.c);
    head.k = rounded_up(arch->classes);
    (void)snprintf(layer, sizeof layer, "%s %d px,fc", name, image.h);
    plan_layer(survey, &head, layer);
    free(arch);
}

/* From the file that was written, cuDNN builds the same plans. */
static void plan_again(const struct survey *survey, const char *engines)
{
    struct apd_dnn *dnn = new_dnn(engines);

    assert_string_equal(apd_dnn_engines_note(dnn), "");
    for (size_t i = 0; i < survey->plans; i++)
        assert_string_equal(dnn_plan_info(dnn, &survey->seen[i]).name, survey->name[i]);
    assert_string_equal(apd_dnn_replaced(dnn), "");
    apd_dnn_destroy(&dnn);
}

static void every_layer_of_every_network_has_a_plan(void **state)
{
    const char *engines = scratch_path("all engines");
    struct survey *survey = calloc(1, sizeof *survey);
    double start = apd_now_s();
    struct apd_dnn_summary summary;
    struct apd_err err;

    (void)state;
    assert_non_null(survey);
    survey->dnn = new_dnn(engines);
    survey->table = fopen(table_path, "w");
    assert_non_null(survey->table);
    fprintf(survey->table, "network,layer,type,op,n,h,w,c,k,kernel,stride,groups,engine,fallback,"
                           "tensor_core,compiled_late,workspace_bytes\n");
    for (int i = 0; apd_arch_name(i) != NULL; i++)
        for (int small_stem = 0; small_stem < 2; small_stem++)
            plan_network(survey, apd_arch_name(i), small_stem);
    assert_int_equal(fclose(survey->table), 0);
    apd_dnn_summarize(survey->dnn, &summary);
    printf("%s: %zu plans in %.1f s: %d on tensor cores, %d by fallback, %d compiled late\n",
           device_name, survey->plans, apd_now_s() - start, summary.tensor_core, summary.fallback,
           summary.compiled_late);
    for (int i = 0; i < PRECISIONS; i++)
        printf("largest workspace in %s: %.1f MiB for %s\n", precisions[i].name,
               (double)survey->largest[i] / (double)MIB, survey->where[i]);
    assert_true(survey->plans > 1000);
    GOOD(apd_dnn_save(survey->dnn, &err));
    apd_dnn_destroy(&survey->dnn);
    plan_again(survey, engines);
    free(survey);
}

/* ---- what else the genuine library has to say ---- */

static const struct apd_dnn_problem float_problem = {
    .n = 64, .h = 56, .w = 56, .c = 64, .k = 64, .kernel = 3, .stride = 1, .pad = 1, .groups = 1};

static void an_impossible_problem_is_told_in_cudnn_s_words(void **state)
{
    struct apd_dnn *dnn = new_dnn(NULL);
    struct apd_dnn_problem problem = float_problem;
    const struct apd_dnn_plan *plan;
    struct apd_err err;

    (void)state;
    problem.kernel = 99;
    assert_int_equal(apd_dnn_plan(dnn, &problem, &plan, &err), APD_DEVICE);
    assert_non_null(strstr(err.msg, "forward f32 64x56x56x64 -> 64 99x99/1 pad 1 groups 1: "));
    assert_non_null(strstr(err.msg, "CUDNN_STATUS_BAD_PARAM"));
    problem = float_problem;
    problem.k = 63;
    problem.groups = 2;
    assert_int_equal(apd_dnn_plan(dnn, &problem, &plan, &err), APD_DEVICE);
    assert_non_null(strstr(err.msg, "CUDNN_STATUS_BAD_PARAM: 0 != wDimA[0] % g"));
    apd_dnn_destroy(&dnn);
}

static void a_device_that_cudnn_does_not_understand_is_refused(void **state)
{
    struct apd_dnn_options options = {.device_json = "{\"deviceName\": 3"};
    struct apd_dnn *dnn = NULL;
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_dnn_create(&options, &dnn, &err), APD_DEVICE);
    assert_null(dnn);
}

/* In the file, every `from` becomes `to`. */
static void replace(const char *path, const char *from, const char *to)
{
    char *text = NULL, *changed = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&changed, &size);
    const char *at, *found;
    struct apd_err err;

    assert_non_null(out);
    GOOD(apd_read_file(path, MIB, &text, NULL, &err));
    assert_non_null(strstr(text, from));
    for (at = text; (found = strstr(at, from)) != NULL; at = found + strlen(from))
        fprintf(out, "%.*s%s", (int)(found - at), at, to);
    fprintf(out, "%s", at);
    assert_int_equal(fclose(out), 0);
    scratch_write(path, changed, size);
    free(changed);
    free(text);
}

/* An engine that the heuristics would not have taken: the one for floats, for the problem in which
 * TF32 is allowed. */
static void a_restart_takes_the_engine_of_the_file(void **state)
{
    const char *path = scratch_path("engines");
    struct apd_dnn_plan_info exact, rounded, again;
    struct apd_dnn_problem problem = float_problem;
    struct apd_dnn *dnn = new_dnn(path);
    struct apd_err err;

    (void)state;
    exact = dnn_plan_info(dnn, &problem);
    GOOD(apd_dnn_save(dnn, &err));
    problem.tf32 = 1;
    rounded = dnn_plan_info(dnn, &problem);
    assert_string_not_equal(exact.name, rounded.name);
    apd_dnn_destroy(&dnn);

    replace(path, "\"tf32\":false", "\"tf32\":true");
    dnn = new_dnn(path);
    assert_string_equal(apd_dnn_engines_note(dnn), "");
    again = dnn_plan_info(dnn, &problem);
    assert_string_equal(again.name, exact.name);
    assert_int_equal(again.workspace_bytes, exact.workspace_bytes);
    apd_dnn_destroy(&dnn);
}

static void engines_that_cudnn_does_not_have_are_chosen_anew(void **state)
{
    static const char *const engines[] = {
        "\"engine\":9999,\"knobs\":[]", "\"engine\":-1,\"knobs\":[]", "\"knobs\":[[2,999999]]",
        "\"knobs\":[[43,-7],[99,0]]",   "\"knobs\":[[4000000000,1]]",
    };
    const char *path = scratch_path("engines");
    struct apd_dnn_plan_info first;
    struct apd_dnn *dnn;
    struct apd_err err;

    (void)state;
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        char *text = NULL, *cut;
        char damaged[512];

        scratch_write(path, "", 0);
        dnn = new_dnn(path);
        first = dnn_plan_info(dnn, &float_problem);
        GOOD(apd_dnn_save(dnn, &err));
        apd_dnn_destroy(&dnn);
        GOOD(apd_read_file(path, MIB, &text, NULL, &err));
        cut = strstr(text, i < 2 ? "\"engine\":" : "\"knobs\":");
        assert_non_null(cut);
        (void)snprintf(damaged, sizeof damaged, "%.*s%s}\n]}\n", (int)(cut - text), text,
                       engines[i]);
        scratch_write(path, damaged, strlen(damaged));
        free(text);
        dnn = new_dnn(path);
        assert_string_equal(apd_dnn_engines_note(dnn), "");
        assert_string_equal(dnn_plan_info(dnn, &float_problem).name, first.name);
        apd_dnn_destroy(&dnn);
    }
}

static int make_folder(void **state)
{
    (void)state;
    return scratch_create() == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layer_of_every_network_has_a_plan),
        cmocka_unit_test(an_impossible_problem_is_told_in_cudnn_s_words),
        cmocka_unit_test(a_device_that_cudnn_does_not_understand_is_refused),
        cmocka_unit_test(a_restart_takes_the_engine_of_the_file),
        cmocka_unit_test(engines_that_cudnn_does_not_have_are_chosen_anew),
    };
    struct apd_err err;
    int failed;

    if (argc != 3) {
        fprintf(stderr, "usage: test_plans DEVICE.json TABLE.csv\n");
        return 64;
    }
    if (apd_dnn_check(&err) != APD_OK) {
        printf("%s\n", err.msg);
        return 77;
    }
    device_name = argv[1];
    table_path = argv[2];
    if (apd_read_file(device_name, MIB, &device_json, NULL, &err) != APD_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    failed = cmocka_run_group_tests(tests, make_folder, remove_folder);
    free(device_json);
    return failed;
}
