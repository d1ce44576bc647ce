/* The choice of an engine: the file's if there is one, else the first of the heuristics (mode A,
 * then the fallbacks) whose notes are allowed and whose plan can be finalized; those of a better
 * grade before all others.
 *
 * Notes that are not allowed: NONDETERMINISTIC (unless asked for), REDUCED_PRECISION_REDUCTION
 * (sums in 16 bits), DOWN_CONVERT_INPUTS (to fewer bits than TF32 has), and for F32 without tf32
 * also TENSOR_CORE: tensor cores have no product of floats, an engine for floats that uses them
 * rounds its inputs to TF32. */
#include "kernels/cuda/dnn_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Why no engine was taken, for the error. */
struct refusals {
    int offered, not_allowed;
    struct apd_err first; /* of those that could not be built */
};

/* Engines are compared by what makes a start or a step slow, the worst first: code that is compiled
 * when it is planned (about a second each, which no restart is spared), sums without tensor cores
 * where the type has them. */
enum { ANY_GRADE = -1, PLAIN_CORES = 1, COMPILED_LATE = 2, GRADES = 4 };

struct notes {
    unsigned numerical, behavior; /* a bit each */
};

struct chooser {
    const struct dnn_terms *terms;
    cudnnBackendDescriptor_t graph;
    int grade; /* the only one to take now */
    struct apd_dnn_plan *plan;
    struct refusals refusals;
};

static const char *const kind_names[APD_DNN_OPS] = {"forward", "backward data", "backward filter"};

void dnn_problem_text(const struct apd_dnn_problem *p, char *out, size_t size)
{
    (void)snprintf(out, size, "%s %s%s %dx%dx%dx%d -> %d %dx%d/%d pad %d groups %d",
                   kind_names[p->op], dnn_type_names[p->type], p->tf32 ? " tf32" : "", p->n, p->h,
                   p->w, p->c, p->k, p->kernel, p->kernel, p->stride, p->pad, p->groups);
}

/* ---- engines ---- */

/* The engine of a config, in the bag. */
static enum apd_code engine_of(struct dnn_bag *bag, cudnnBackendDescriptor_t config,
                               cudnnBackendDescriptor_t *out, struct apd_err *err)
{
    cudnnBackendDescriptor_t engine;
    int64_t count;
    enum apd_code rc;

    APD_GO(dnn_new(bag, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine, err));
    DNN_GO(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine));
    *out = engine;
done:
    return rc;
}

static enum apd_code notes_of(cudnnBackendDescriptor_t engine, struct notes *out,
                              struct apd_err *err)
{
    cudnnBackendNumericalNote_t numerical[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendBehaviorNote_t behavior[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t numericals = 0, behaviors = 0;
    enum apd_code rc = APD_OK;

    DNN_GO(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                    CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT,
                                    &numericals, numerical));
    DNN_GO(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE,
                                    CUDNN_TYPE_BEHAVIOR_NOTE, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT,
                                    &behaviors, behavior));
    *out = (struct notes){0};
    for (int64_t i = 0; i < numericals && i < CUDNN_NUMERICAL_NOTE_TYPE_COUNT; i++)
        out->numerical |= 1u << numerical[i];
    for (int64_t i = 0; i < behaviors && i < CUDNN_BEHAVIOR_NOTE_TYPE_COUNT; i++)
        out->behavior |= 1u << behavior[i];
done:
    return rc;
}

static int is_on_tensor_cores(const struct notes *notes)
{
    return (notes->numerical >> CUDNN_NUMERICAL_NOTE_TENSOR_CORE & 1) != 0;
}

static int is_compiled_late(const struct notes *notes)
{
    return (notes->behavior >> CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION & 1) != 0;
}

static int allowed(const struct chooser *chooser, const struct notes *notes)
{
    const struct apd_dnn_problem *problem = &chooser->plan->problem;
    unsigned bad = 1u << CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION |
                   1u << CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;

    if (!chooser->terms->nondeterministic)
        bad |= 1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    if (problem->type == APD_CUDA_F32 && !problem->tf32)
        bad |= 1u << CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    return (notes->numerical & bad) == 0;
}

static int grade_of(const struct apd_dnn_problem *problem, const struct notes *notes)
{
    int has_tensor_cores = problem->type != APD_CUDA_F32 || problem->tf32;

    return (is_compiled_late(notes) ? COMPILED_LATE : 0) |
           (has_tensor_cores && !is_on_tensor_cores(notes) ? PLAIN_CORES : 0);
}

static int is_refused(const struct apd_dnn_plan *plan, int64_t engine)
{
    for (int i = 0; i < plan->refused_count; i++)
        if (plan->refused[i] == engine)
            return 1;
    return 0;
}

/* ---- plans ---- */

static enum apd_code read_knob(cudnnBackendDescriptor_t knob, int64_t *out_type, int64_t *out_value,
                               struct apd_err *err)
{
    cudnnBackendKnobType_t type;
    int64_t count;
    enum apd_code rc = APD_OK;

    DNN_GO(cudnnBackendGetAttribute(knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
                                    &count, &type));
    DNN_GO(cudnnBackendGetAttribute(knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1,
                                    &count, out_value));
    *out_type = (int64_t)type;
done:
    return rc;
}

static enum apd_code read_knobs(cudnnBackendDescriptor_t config, struct dnn_choice *out,
                                struct apd_err *err)
{
    struct {
        struct dnn_bag bag;
        cudnnBackendDescriptor_t at[DNN_MAX_KNOBS];
    } knobs = {0};
    int64_t count = 0;
    enum apd_code rc = APD_OK;

    for (int i = 0; i < DNN_MAX_KNOBS; i++)
        APD_GO(dnn_new(&knobs.bag, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knobs.at[i], err));
    DNN_GO(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, DNN_MAX_KNOBS, &count,
                                    knobs.at));
    if (count > DNN_MAX_KNOBS) {
        rc = apd_fail(err, APD_DEVICE, "an engine with %lld knobs: expected at most %d",
                      (long long)count, DNN_MAX_KNOBS);
        goto done;
    }
    for (int i = 0; i < count; i++)
        APD_GO(read_knob(knobs.at[i], &out->knob[i].type, &out->knob[i].value, err));
    out->knob_count = (int)count;
done:
    dnn_bag_cut(&knobs.bag, 0);
    return rc;
}

/* What the finalized plan came to. */
static enum apd_code describe(struct apd_dnn_plan *plan, cudnnBackendDescriptor_t config,
                              cudnnBackendDescriptor_t engine, const struct notes *notes,
                              struct apd_err *err)
{
    struct apd_dnn_plan_info *info = &plan->info;
    int64_t count, workspace;
    size_t used;
    enum apd_code rc = APD_OK;

    DNN_GO(cudnnBackendGetAttribute(plan->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                    CUDNN_TYPE_INT64, 1, &count, &workspace));
    DNN_GO(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1,
                                    &count, &plan->choice.engine));
    APD_GO(read_knobs(config, &plan->choice, err));
    info->engine = plan->choice.engine;
    info->workspace_bytes = (size_t)workspace;
    info->tensor_core = is_on_tensor_cores(notes);
    info->deterministic = (notes->numerical >> CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC & 1) == 0;
    info->compiled_late = is_compiled_late(notes);
    used = (size_t)snprintf(info->name, sizeof info->name, "eng%lld", (long long)info->engine);
    for (int i = 0; i < plan->choice.knob_count && used < sizeof info->name; i++)
        used += (size_t)snprintf(info->name + used, sizeof info->name - used, " k%lld=%lld",
                                 (long long)plan->choice.knob[i].type,
                                 (long long)plan->choice.knob[i].value);
done:
    return rc;
}

/* Finalizes a plan for the config if it is of the grade, its notes are allowed and its workspace
 * fits. *taken = 0 otherwise, or if cuDNN cannot build it; then the bag is as it was. */
static enum apd_code try_config(struct chooser *chooser, cudnnBackendDescriptor_t config,
                                int *taken, struct apd_err *err)
{
    struct apd_dnn_plan *plan = chooser->plan;
    int keep = plan->bag.count;
    cudnnBackendDescriptor_t engine = NULL, built = NULL;
    struct notes notes = {0};
    enum apd_code rc;

    *taken = 0;
    APD_GO(engine_of(&plan->bag, config, &engine, err));
    APD_GO(notes_of(engine, &notes, err));
    if (chooser->grade != ANY_GRADE && chooser->grade != grade_of(&plan->problem, &notes))
        goto done;
    chooser->refusals.offered++;
    if (!allowed(chooser, &notes)) {
        chooser->refusals.not_allowed++;
        goto done;
    }
    APD_GO(dnn_new(&plan->bag, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &built, err));
    DNN_SET_DESCRIPTOR(built, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    DNN_SET_DESCRIPTOR(built, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, chooser->terms->device);
    DNN_GO(cudnnBackendFinalize(built));
    plan->plan = built;
    APD_GO(describe(plan, config, engine, &notes, err));
    *taken = !is_refused(plan, plan->choice.engine) &&
             plan->info.workspace_bytes <= chooser->terms->max_workspace_bytes;
done:
    if (rc == APD_DEVICE) { /* of this engine; others may do */
        if (chooser->refusals.first.code == APD_OK)
            chooser->refusals.first = *err;
        rc = APD_OK;
    }
    if (!*taken) {
        plan->plan = NULL;
        dnn_bag_cut(&plan->bag, keep);
    }
    return rc;
}

/* ---- where configs come from ---- */

static enum apd_code new_knob(struct dnn_bag *bag, int64_t knob_type, int64_t value,
                              cudnnBackendDescriptor_t *out, struct apd_err *err)
{
    cudnnBackendKnobType_t type = (cudnnBackendKnobType_t)knob_type;
    cudnnBackendDescriptor_t knob;
    enum apd_code rc;

    APD_GO(dnn_new(bag, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knob, err));
    DNN_SET(knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, &type);
    DNN_SET(knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, &value);
    DNN_GO(cudnnBackendFinalize(knob));
    *out = knob;
done:
    return rc;
}

/* The config that a choice stands for. */
static enum apd_code new_config(const struct chooser *chooser, const struct dnn_choice *choice,
                                struct dnn_bag *knobs, cudnnBackendDescriptor_t *out,
                                struct apd_err *err)
{
    struct dnn_bag *bag = &chooser->plan->bag;
    cudnnBackendDescriptor_t engine, config, knob[DNN_MAX_KNOBS];
    enum apd_code rc;

    APD_GO(dnn_new(bag, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine, err));
    DNN_SET_DESCRIPTOR(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, chooser->graph);
    DNN_SET(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, &choice->engine);
    DNN_SET_DESCRIPTOR(engine, CUDNN_ATTR_ENGINE_DEVICEPROP, chooser->terms->device);
    DNN_GO(cudnnBackendFinalize(engine));
    for (int i = 0; i < choice->knob_count; i++)
        APD_GO(new_knob(knobs, choice->knob[i].type, choice->knob[i].value, &knob[i], err));
    APD_GO(dnn_new(bag, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config, err));
    DNN_SET_DESCRIPTOR(config, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    if (choice->knob_count > 0)
        DNN_GO(cudnnBackendSetAttribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, choice->knob_count, knob));
    DNN_GO(cudnnBackendFinalize(config));
    *out = config;
done:
    return rc;
}

static enum apd_code try_choice(struct chooser *chooser, const struct dnn_choice *choice,
                                int *taken, struct apd_err *err)
{
    struct dnn_bag knobs = {0};
    int keep = chooser->plan->bag.count;
    cudnnBackendDescriptor_t config = NULL;
    enum apd_code rc;

    *taken = 0;
    APD_GO(new_config(chooser, choice, &knobs, &config, err));
    APD_GO(try_config(chooser, config, taken, err));
done:
    dnn_bag_cut(&knobs, 0);
    if (!*taken)
        dnn_bag_cut(&chooser->plan->bag, keep);
    return rc == APD_DEVICE ? APD_OK : rc; /* the heuristics will say */
}

static enum apd_code try_configs(struct chooser *chooser, cudnnBackendDescriptor_t heuristics,
                                 int64_t count, int *taken, struct apd_err *err)
{
    cudnnBackendDescriptor_t *config = calloc((size_t)count, sizeof *config);
    int64_t got = 0;
    enum apd_code rc = APD_OK;

    if (config == NULL)
        return apd_fail(err, APD_NOMEM, "no memory for %lld engines", (long long)count);
    for (int64_t i = 0; i < count; i++)
        DNN_GO(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config[i]));
    DNN_GO(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &got, config));
    for (int64_t i = 0; i < got && i < count && !*taken; i++) {
        APD_GO(try_config(chooser, config[i], taken, err));
        if (*taken) { /* lives as long as the plan */
            chooser->plan->bag.at[chooser->plan->bag.count++] = config[i];
            config[i] = NULL;
        }
    }
done:
    for (int64_t i = 0; i < count; i++)
        if (config[i] != NULL)
            (void)cudnnBackendDestroyDescriptor(config[i]);
    free(config);
    return rc;
}

static enum apd_code try_mode(struct chooser *chooser, cudnnBackendHeurMode_t mode, int *taken,
                              struct apd_err *err)
{
    struct dnn_bag bag = {0};
    cudnnBackendDescriptor_t heuristics;
    int64_t count = 0;
    enum apd_code rc;

    *taken = 0;
    APD_GO(dnn_new(&bag, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristics, err));
    DNN_SET_DESCRIPTOR(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, chooser->graph);
    DNN_SET(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, &mode);
    DNN_SET_DESCRIPTOR(heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, chooser->terms->device);
    DNN_GO(cudnnBackendFinalize(heuristics));
    DNN_GO(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, NULL));
    if (count > 0)
        APD_GO(try_configs(chooser, heuristics, count, taken, err));
done:
    dnn_bag_cut(&bag, 0);
    if (rc == APD_DEVICE && chooser->refusals.first.code == APD_OK)
        chooser->refusals.first = *err;
    return rc == APD_DEVICE ? APD_OK : rc;
}

static enum apd_code nothing_fits(const struct refusals *refusals, struct apd_err *err)
{
    int why = refusals->first.code != APD_OK;

    return apd_fail(
        err, APD_DEVICE, "no engine: %d offered, %d of them not deterministic or not precise%s%s",
        refusals->offered, refusals->not_allowed, why ? "; " : "", why ? refusals->first.msg : "");
}

/* The heuristics, for engines of one grade. */
static enum apd_code try_grade(struct chooser *chooser, int *taken, struct apd_err *err)
{
    APD_TRY(try_mode(chooser, CUDNN_HEUR_MODE_A, taken, err));
    if (!*taken) {
        APD_TRY(try_mode(chooser, CUDNN_HEUR_MODE_FALLBACK, taken, err));
        chooser->plan->info.fallback = *taken;
    }
    return APD_OK;
}

enum apd_code dnn_choose(const struct dnn_terms *terms, const struct dnn_choice *wanted,
                         struct apd_dnn_plan *plan, struct apd_err *err)
{
    struct chooser chooser = {.terms = terms, .grade = ANY_GRADE, .plan = plan};
    int taken = 0;
    enum apd_code rc;

    dnn_bag_cut(&plan->bag, 0);
    plan->plan = NULL;
    plan->info.fallback = 0;
    APD_GO(dnn_graph_create(&plan->bag, &plan->problem, &chooser.graph, err));
    if (wanted != NULL)
        APD_GO(try_choice(&chooser, wanted, &taken, err));
    for (chooser.grade = 0; chooser.grade < GRADES && !taken; chooser.grade++)
        APD_GO(try_grade(&chooser, &taken, err));
    if (!taken)
        rc = nothing_fits(&chooser.refusals, err);
done:
    if (rc != APD_OK) {
        char problem[128];

        dnn_problem_text(&plan->problem, problem, sizeof problem);
        rc = apd_prefix(err, "%s", problem);
    }
    return rc;
}
