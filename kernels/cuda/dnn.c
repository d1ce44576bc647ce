/* Plans and their runs. A plan keeps the descriptors it was made of; the file of engines is read at
 * creation and written on request. */
#include "kernels/cuda/dnn_private.h"

#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct apd_dnn {
    cudnnHandle_t handle; /* NULL: plans only */
    struct dnn_bag bag;
    struct dnn_terms terms;
    char *device_json;
    char device_name[128];
    char *engines_path; /* NULL: none */
    struct dnn_engines engines;
    char note[640], replaced[640];
    struct apd_dnn_plan *plans;
    size_t workspace_bytes;
};

void apd_dnn_versions(size_t *out_built, size_t *out_found)
{
    *out_built = CUDNN_VERSION;
    *out_found = cudnnGetVersion();
}

enum apd_code apd_dnn_check(struct apd_err *err)
{
    enum { OLDEST = 90800 };
    size_t found = cudnnGetVersion();

    if (found >= OLDEST && found / 10000 == CUDNN_MAJOR)
        return APD_OK;
    return apd_fail(err, APD_DEVICE,
                    "cuDNN %zu.%zu.%zu was found where %d.%d or a newer %d is needed",
                    found / 10000, found / 100 % 100, found % 100, OLDEST / 10000,
                    OLDEST / 100 % 100, CUDNN_MAJOR);
}

static void plan_destroy(struct apd_dnn_plan *plan)
{
    dnn_bag_cut(&plan->bag, 0);
    free(plan);
}

void apd_dnn_destroy(struct apd_dnn **dnn)
{
    if (*dnn == NULL)
        return;
    for (struct apd_dnn_plan *plan = (*dnn)->plans, *next; plan != NULL; plan = next) {
        next = plan->next;
        plan_destroy(plan);
    }
    dnn_bag_cut(&(*dnn)->bag, 0);
    if ((*dnn)->handle != NULL)
        (void)cudnnDestroy((*dnn)->handle);
    dnn_engines_fini(&(*dnn)->engines);
    free((*dnn)->device_json);
    free((*dnn)->engines_path);
    free(*dnn);
    *dnn = NULL;
}

static enum apd_code read_device_name(struct apd_dnn *dnn, struct apd_err *err)
{
    json_t *json = json_loads(dnn->device_json, 0, NULL);
    const char *name = json_string_value(json_object_get(json, "deviceName"));
    enum apd_code rc = APD_OK;

    if (name != NULL)
        (void)snprintf(dnn->device_name, sizeof dnn->device_name, "%s", name);
    else
        rc = apd_fail(err, APD_DEVICE, "properties of the device have no deviceName: %.200s",
                      dnn->device_json);
    json_decref(json);
    return rc;
}

static enum apd_code open_device(struct apd_dnn *dnn, const char *json, struct apd_err *err)
{
    enum apd_code rc = APD_OK;

    APD_GO(apd_dnn_check(err));
    if (json == NULL)
        DNN_GO(cudnnCreate(&dnn->handle));
    APD_GO(dnn_device_create(&dnn->bag, json, dnn->handle, &dnn->terms.device, err));
    APD_GO(dnn_device_json(dnn->terms.device, &dnn->device_json, err));
    APD_GO(read_device_name(dnn, err));
done:
    return rc;
}

enum apd_code apd_dnn_create(const struct apd_dnn_options *options, struct apd_dnn **out,
                             struct apd_err *err)
{
    struct apd_dnn *dnn = calloc(1, sizeof *dnn);
    enum apd_code rc;

    if (dnn == NULL)
        return apd_fail(err, APD_NOMEM, "no memory for cuDNN");
    dnn->terms.nondeterministic = options->nondeterministic;
    dnn->terms.max_workspace_bytes = SIZE_MAX;
    APD_GO(open_device(dnn, options->device_json, err));
    if (options->engines != NULL) {
        dnn->engines_path = strdup(options->engines);
        if (dnn->engines_path == NULL) {
            rc = apd_fail(err, APD_NOMEM, "no memory for cuDNN");
            goto done;
        }
        dnn_engines_read(dnn->engines_path, dnn->device_name, &dnn->engines, dnn->note,
                         sizeof dnn->note);
    }
    *out = dnn;
    dnn = NULL;
done:
    apd_dnn_destroy(&dnn);
    return rc;
}

const char *apd_dnn_engines_note(const struct apd_dnn *dnn)
{
    return dnn->note;
}

const char *apd_dnn_device_json(const struct apd_dnn *dnn)
{
    return dnn->device_json;
}

const char *apd_dnn_replaced(const struct apd_dnn *dnn)
{
    return dnn->replaced;
}

/* Adds a sentence to what apd_dnn_replaced() says, as long as there is room. */
static void note_replaced(struct apd_dnn *dnn, const struct apd_dnn_plan *plan, const char *why)
{
    size_t used = strlen(dnn->replaced);
    char problem[128];

    dnn_problem_text(&plan->problem, problem, sizeof problem);
    (void)snprintf(dnn->replaced + used, sizeof dnn->replaced - used, "%s%s: %s, now %s",
                   used > 0 ? "; " : "", problem, why, plan->info.name);
}

static struct apd_dnn_plan *find_plan(const struct apd_dnn *dnn,
                                      const struct apd_dnn_problem *problem)
{
    struct apd_dnn_plan *plan = dnn->plans;

    while (plan != NULL && !dnn_problem_equal(&plan->problem, problem))
        plan = plan->next;
    return plan;
}

static enum apd_code make_plan(struct apd_dnn *dnn, const struct apd_dnn_problem *problem,
                               struct apd_err *err)
{
    const struct dnn_choice *wanted = dnn_engines_find(&dnn->engines, problem);
    struct apd_dnn_plan *plan = calloc(1, sizeof *plan);
    enum apd_code rc;

    if (plan == NULL)
        return apd_fail(err, APD_NOMEM, "no memory for a convolution");
    plan->problem = *problem;
    APD_GO(dnn_choose(&dnn->terms, wanted, plan, err));
    if (wanted != NULL && !dnn_choice_equal(wanted, &plan->choice))
        note_replaced(dnn, plan, "the file's engine cannot be had");
    APD_GO(dnn_engines_put(&dnn->engines, problem, &plan->choice, err));
    if (plan->info.workspace_bytes > dnn->workspace_bytes)
        dnn->workspace_bytes = plan->info.workspace_bytes;
    plan->next = dnn->plans;
    dnn->plans = plan;
    plan = NULL;
done:
    if (plan != NULL)
        plan_destroy(plan);
    return rc;
}

enum apd_code apd_dnn_plan(struct apd_dnn *dnn, const struct apd_dnn_problem *problem,
                           const struct apd_dnn_plan **out, struct apd_err *err)
{
    struct apd_dnn_problem key = *problem;

    assert(problem->stride > 0 && problem->groups > 0);
    key.tf32 = key.type == APD_CUDA_F32 && key.tf32;
    if (find_plan(dnn, &key) == NULL)
        APD_TRY(make_plan(dnn, &key, err));
    *out = find_plan(dnn, &key);
    return APD_OK;
}

void apd_dnn_plan_info(const struct apd_dnn_plan *plan, struct apd_dnn_plan_info *out)
{
    *out = plan->info;
}

void apd_dnn_summarize(const struct apd_dnn *dnn, struct apd_dnn_summary *out)
{
    *out = (struct apd_dnn_summary){0};
    for (const struct apd_dnn_plan *plan = dnn->plans; plan != NULL; plan = plan->next) {
        out->plans++;
        out->tensor_core += plan->info.tensor_core;
        out->fallback += plan->info.fallback;
        out->compiled_late += plan->info.compiled_late;
    }
}

size_t apd_dnn_workspace_bytes(const struct apd_dnn *dnn)
{
    return dnn->workspace_bytes;
}

/* The operands by name. cuDNN takes the address of an operand it only reads as it takes that of its
 * result. */
static enum apd_code new_variant_pack(struct dnn_bag *bag, const void *x, const void *w,
                                      const void *y, void *workspace, cudnnBackendDescriptor_t *out,
                                      struct apd_err *err)
{
    const int64_t uids[3] = {DNN_UID_X, DNN_UID_W, DNN_UID_Y};
    const void *const data[3] = {x, w, y};
    cudnnBackendDescriptor_t pack;
    enum apd_code rc;

    APD_GO(dnn_new(bag, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack, err));
    DNN_GO(cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3,
                                    uids));
    DNN_GO(cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                    CUDNN_TYPE_VOID_PTR, 3, data));
    DNN_SET(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, &workspace);
    DNN_GO(cudnnBackendFinalize(pack));
    *out = pack;
done:
    return rc;
}

static enum apd_code execute(struct apd_dnn *dnn, const struct apd_dnn_plan *plan,
                             cudnnBackendDescriptor_t pack, struct apd_err *err)
{
    enum apd_code rc = APD_OK;

    if (plan->plan == NULL)
        return apd_fail(err, APD_DEVICE, "no engine that runs");
    DNN_GO(cudnnBackendExecute(dnn->handle, plan->plan, pack));
done:
    return rc;
}

static int is_recording(cudaStream_t stream)
{
    enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;

    return cudaStreamIsCapturing(stream, &status) != cudaSuccess ||
           status != cudaStreamCaptureStatusNone;
}

/* Finalizing a plan proves that cuDNN can build it; that the device takes it shows when it runs
 * first. The engine is refused and the next one tried, within the workspace that there is. *err:
 * the first failure. */
static enum apd_code run_another(struct apd_dnn *dnn, struct apd_dnn_plan *plan,
                                 cudnnBackendDescriptor_t pack, struct apd_err *err)
{
    struct dnn_terms terms = dnn->terms;
    enum apd_code rc = APD_DEVICE;
    char why[320];

    (void)snprintf(why, sizeof why, "%s did not run (%.200s)", plan->info.name, err->msg);
    terms.max_workspace_bytes = dnn->workspace_bytes;
    while (rc == APD_DEVICE && plan->refused_count < DNN_MAX_REFUSED) {
        struct apd_err another;

        plan->refused[plan->refused_count++] = plan->choice.engine;
        if (dnn_choose(&terms, NULL, plan, &another) != APD_OK)
            return err->code;
        rc = execute(dnn, plan, pack, &another);
    }
    if (rc != APD_OK)
        return err->code;
    note_replaced(dnn, plan, why);
    return dnn_engines_put(&dnn->engines, &plan->problem, &plan->choice, err);
}

enum apd_code apd_dnn_run(struct apd_dnn *dnn, const struct apd_dnn_plan *plan, const void *x,
                          const void *w, const void *y, void *workspace, cudaStream_t stream,
                          struct apd_err *err)
{
    struct dnn_bag bag = {0};
    cudnnBackendDescriptor_t pack = NULL;
    enum apd_code rc;

    if (dnn->handle == NULL)
        return apd_fail(err, APD_BUG, "a convolution planned for a device that is not there");
    DNN_GO(cudnnSetStream(dnn->handle, stream));
    APD_GO(new_variant_pack(&bag, x, w, y, workspace, &pack, err));
    rc = execute(dnn, plan, pack, err);
    if (!plan->has_run) {
        struct apd_dnn_plan *own = find_plan(dnn, &plan->problem);

        if (rc == APD_DEVICE && !is_recording(stream))
            rc = run_another(dnn, own, pack, err);
        own->has_run = rc == APD_OK;
    }
done:
    dnn_bag_cut(&bag, 0);
    if (rc != APD_OK) {
        char problem[128];

        dnn_problem_text(&plan->problem, problem, sizeof problem);
        rc = apd_prefix(err, "%s", problem);
    }
    return rc;
}

enum apd_code apd_dnn_save(struct apd_dnn *dnn, struct apd_err *err)
{
    if (dnn->engines_path == NULL || !dnn->engines.changed)
        return APD_OK;
    return dnn_engines_write(dnn->engines_path, dnn->device_name, &dnn->engines, err);
}
