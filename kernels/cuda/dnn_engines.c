/* The file of chosen engines: JSON, good for one version of cuDNN and one kind of device. Whatever
 * is wrong with it, the heuristics can do without. */
#include "base/fs.h"
#include "kernels/cuda/dnn_private.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT   1
#define MAX_FILE ((size_t)4 << 20)

const char *const dnn_op_names[APD_DNN_OPS] = {"forward", "backward_data", "backward_filter"};
const char *const dnn_type_names[APD_CUDA_TYPES] = {"f32", "f16", "bf16"};

int dnn_problem_equal(const struct apd_dnn_problem *a, const struct apd_dnn_problem *b)
{
    return a->op == b->op && a->type == b->type && a->tf32 == b->tf32 && a->n == b->n &&
           a->h == b->h && a->w == b->w && a->c == b->c && a->k == b->k && a->kernel == b->kernel &&
           a->stride == b->stride && a->pad == b->pad && a->groups == b->groups;
}

static struct dnn_engine *find(const struct dnn_engines *engines,
                               const struct apd_dnn_problem *problem)
{
    for (size_t i = 0; i < engines->count; i++)
        if (dnn_problem_equal(&engines->at[i].problem, problem))
            return &engines->at[i];
    return NULL;
}

const struct dnn_choice *dnn_engines_find(const struct dnn_engines *engines,
                                          const struct apd_dnn_problem *problem)
{
    const struct dnn_engine *engine = find(engines, problem);

    return engine != NULL ? &engine->choice : NULL;
}

int dnn_choice_equal(const struct dnn_choice *a, const struct dnn_choice *b)
{
    if (a->engine != b->engine || a->knob_count != b->knob_count)
        return 0;
    for (int i = 0; i < a->knob_count; i++)
        if (a->knob[i].type != b->knob[i].type || a->knob[i].value != b->knob[i].value)
            return 0;
    return 1;
}

static enum apd_code grow(struct dnn_engines *engines, struct apd_err *err)
{
    size_t capacity = engines->capacity == 0 ? 64 : 2 * engines->capacity;
    struct dnn_engine *at = realloc(engines->at, capacity * sizeof *at);

    if (at == NULL)
        return apd_fail(err, APD_NOMEM, "no memory for %zu engines", capacity);
    engines->at = at;
    engines->capacity = capacity;
    return APD_OK;
}

enum apd_code dnn_engines_put(struct dnn_engines *engines, const struct apd_dnn_problem *problem,
                              const struct dnn_choice *choice, struct apd_err *err)
{
    struct dnn_engine *engine = find(engines, problem);

    if (engine != NULL && dnn_choice_equal(&engine->choice, choice))
        return APD_OK;
    if (engine == NULL) {
        if (engines->count == engines->capacity)
            APD_TRY(grow(engines, err));
        engine = &engines->at[engines->count++];
    }
    *engine = (struct dnn_engine){.problem = *problem, .choice = *choice};
    engines->changed = 1;
    return APD_OK;
}

void dnn_engines_fini(struct dnn_engines *engines)
{
    free(engines->at);
    *engines = (struct dnn_engines){0};
}

/* ---- reading ---- */

/* -1: not one of them */
static int name_index(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

static enum apd_code knobs_from(const json_t *list, struct dnn_choice *choice, struct apd_err *err)
{
    size_t count = json_array_size(list);

    if (count > DNN_MAX_KNOBS)
        return apd_fail(err, APD_DATA, "%zu knobs: expected at most %d", count, DNN_MAX_KNOBS);
    for (size_t i = 0; i < count; i++) {
        json_int_t type, value;
        json_error_t error;

        if (json_unpack_ex(json_array_get(list, i), &error, JSON_STRICT, "[II]", &type, &value) !=
            0)
            return apd_fail(err, APD_DATA, "knobs: %s", error.text);
        choice->knob[i].type = type;
        choice->knob[i].value = value;
    }
    choice->knob_count = (int)count;
    return APD_OK;
}

static enum apd_code engine_from(json_t *json, struct dnn_engine *out, struct apd_err *err)
{
    struct apd_dnn_problem *p = &out->problem;
    const char *op, *type;
    json_int_t engine;
    json_t *knobs;
    json_error_t error;
    int op_index, type_index;

    if (json_unpack_ex(json, &error, JSON_STRICT,
                       "{s:s, s:s, s:b, s:[iiii], s:i, s:i, s:i, s:i, s:i, s:I, s:o}", "op", &op,
                       "type", &type, "tf32", &p->tf32, "nhwc", &p->n, &p->h, &p->w, &p->c, "k",
                       &p->k, "kernel", &p->kernel, "stride", &p->stride, "pad", &p->pad, "groups",
                       &p->groups, "engine", &engine, "knobs", &knobs) != 0)
        return apd_fail(err, APD_DATA, "%s", error.text);
    if (!json_is_array(knobs))
        return apd_fail(err, APD_DATA, "knobs: expected a list");
    op_index = name_index(dnn_op_names, APD_DNN_OPS, op);
    type_index = name_index(dnn_type_names, APD_CUDA_TYPES, type);
    if (op_index < 0 || type_index < 0)
        return apd_fail(err, APD_DATA, "op \"%s\" of type \"%s\" is not known", op, type);
    p->op = (enum apd_dnn_op)op_index;
    p->type = (enum apd_cuda_type)type_index;
    out->choice.engine = engine;
    return knobs_from(knobs, &out->choice, err);
}

static enum apd_code engines_from(json_t *root, const char *device, struct dnn_engines *engines,
                                  struct apd_err *err)
{
    const char *made_for;
    json_int_t format, version;
    json_t *list;
    json_error_t error;

    if (json_unpack_ex(root, &error, JSON_STRICT, "{s:I, s:I, s:s, s:o}", "format", &format,
                       "cudnn", &version, "device", &made_for, "engines", &list) != 0)
        return apd_fail(err, APD_DATA, "%s", error.text);
    if (format != FORMAT)
        return apd_fail(err, APD_DATA, "format %lld: expected %d", (long long)format, FORMAT);
    if (version != (json_int_t)cudnnGetVersion())
        return apd_fail(err, APD_DATA, "made by cuDNN %lld, this is %lld", (long long)version,
                        (long long)cudnnGetVersion());
    if (strcmp(made_for, device) != 0)
        return apd_fail(err, APD_DATA, "made for %s, this is %s", made_for, device);
    if (!json_is_array(list))
        return apd_fail(err, APD_DATA, "engines: expected a list");
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct dnn_engine engine = {0};

        if (engine_from(json_array_get(list, i), &engine, err) != APD_OK)
            return apd_prefix(err, "engine %zu", i);
        APD_TRY(dnn_engines_put(engines, &engine.problem, &engine.choice, err));
    }
    return APD_OK;
}

void dnn_engines_read(const char *path, const char *device, struct dnn_engines *engines, char *note,
                      size_t note_size)
{
    struct apd_err err = {0};
    json_error_t error;
    json_t *root = NULL;
    size_t size;
    char *text = NULL;
    enum apd_code rc;

    note[0] = '\0';
    APD_GO(apd_read_file(path, MAX_FILE, &text, &size, &err));
    root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        rc = apd_fail(&err, APD_DATA, "line %d: %s", error.line, error.text);
        goto done;
    }
    APD_GO(engines_from(root, device, engines, &err));
    engines->changed = 0;
done:
    if (rc != APD_OK && !(rc == APD_IO && err.sys == ENOENT))
        (void)snprintf(note, note_size, "%s: %s", path, err.msg);
    if (rc != APD_OK)
        dnn_engines_fini(engines);
    json_decref(root);
    free(text);
}

/* ---- writing ---- */

static json_t *to_json(const struct dnn_engine *engine)
{
    const struct apd_dnn_problem *p = &engine->problem;
    json_t *knobs = json_array();

    for (int i = 0; i < engine->choice.knob_count; i++)
        if (json_array_append_new(knobs, json_pack("[II]", (json_int_t)engine->choice.knob[i].type,
                                                   (json_int_t)engine->choice.knob[i].value)) !=
            0) {
            json_decref(knobs);
            return NULL;
        }
    return json_pack("{s:s, s:s, s:b, s:[iiii], s:i, s:i, s:i, s:i, s:i, s:I, s:o}", "op",
                     dnn_op_names[p->op], "type", dnn_type_names[p->type], "tf32", p->tf32, "nhwc",
                     p->n, p->h, p->w, p->c, "k", p->k, "kernel", p->kernel, "stride", p->stride,
                     "pad", p->pad, "groups", p->groups, "engine",
                     (json_int_t)engine->choice.engine, "knobs", knobs);
}

/* One engine a line, so that two files can be compared. */
static int print(FILE *out, const char *device, const struct dnn_engines *engines)
{
    json_t *name = json_string(device);
    int failed = name == NULL;

    fprintf(out, "{\"format\": %d, \"cudnn\": %zu, \"device\": ", FORMAT, cudnnGetVersion());
    failed |= json_dumpf(name, out, JSON_ENCODE_ANY) != 0;
    json_decref(name);
    fprintf(out, ", \"engines\": [");
    for (size_t i = 0; i < engines->count && !failed; i++) {
        json_t *engine = to_json(&engines->at[i]);

        fprintf(out, i > 0 ? ",\n" : "\n");
        failed |= json_dumpf(engine, out, JSON_COMPACT) != 0;
        json_decref(engine);
    }
    fprintf(out, "\n]}\n");
    return failed || ferror(out);
}

enum apd_code dnn_engines_write(const char *path, const char *device, struct dnn_engines *engines,
                                struct apd_err *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    int failed = out == NULL || print(out, device, engines) != 0;
    enum apd_code rc = APD_OK;

    failed |= out != NULL && fclose(out) != 0;
    if (failed) {
        rc = apd_fail(err, APD_NOMEM, "no memory for %s", path);
        goto done;
    }
    APD_GO(apd_write_file(path, text, size, 1, err));
    engines->changed = 0;
done:
    free(text);
    return rc;
}
