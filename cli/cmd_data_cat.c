/* advprop data cat: an image as it is stored (`advprop-worker --data-cat`), or, with a run.yaml, as
 * the run sees it (`advprop-worker --data-view`). */
#include "cli/cmd_data_sets.h"
#include "cli/command.h"
#include "cli/launch.h"
#include "cli/overrides.h"
#include "cli/programs.h"

#include <limits.h>

enum { KEY_EVAL = 256, ARGUMENTS_MAX = APD_OVERRIDES_MAX + 2 };

struct cat_args {
    const char *out, *config;
    long epoch; /* -1: not said */
    int raw, eval;
    char *argument[ARGUMENTS_MAX];
    int count;
};

static const struct argp_option options[] = {
    {"output", 'o', "FILE", 0, "write to FILE (standard output)", 0},
    {"raw", 'r', NULL, 0, "the bytes as they are stored (the default without --config)", 0},
    {"config", 'c', "RUN.yaml", 0, "PNG of what this run trains on, instead of what is stored", 0},
    {"epoch", 'e', "E", 0, "in which epoch, counted from 0 (0)", 0},
    {"eval", KEY_EVAL, NULL, 0, "the test image N, as the run evaluates it", 0},
    {0},
};

/* Which of the two forms it is, and whether it has what it takes. */
static void check(const struct cat_args *args, struct argp_state *state)
{
    if (args->config == NULL && (args->epoch >= 0 || args->eval))
        argp_error(state, "--epoch and --eval go with --config RUN.yaml");
    if (args->config != NULL && args->raw)
        argp_error(state, "--raw does not go with --config");
    if (args->eval && args->epoch >= 0)
        argp_error(state, "--eval: test images are the same in every epoch");
    if (args->count < (args->config != NULL ? 1 : 2))
        argp_error(state, "an argument is missing");
    if (args->config == NULL && args->count > 2)
        argp_error(state, "one argument too many: %s", args->argument[2]);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct cat_args *args = state->input;

    switch (key) {
    case 'o':
        args->out = arg;
        return 0;
    case 'r':
        args->raw = 1;
        return 0;
    case 'c':
        args->config = arg;
        return 0;
    case 'e':
        args->epoch = apd_cli_number("epoch", arg, 0, state);
        if (args->epoch > INT_MAX)
            argp_error(state, "--epoch: at most %d", INT_MAX);
        return 0;
    case KEY_EVAL:
        args->eval = 1;
        return 0;
    case ARGP_KEY_ARG:
        if (args->count == ARGUMENTS_MAX)
            argp_error(state, "one argument too many: %s", arg);
        args->argument[args->count++] = arg;
        return 0;
    case ARGP_KEY_END:
        check(args, state);
        if (args->config != NULL)
            (void)apd_cli_number("N", args->argument[0], 0, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "SRC|MANIFEST N\n--config=RUN.yaml N [key=value ...]",
    .doc = "Writes the image of sample N; what is known of it goes to standard error."
           "\vWith --config, N is a sample of the run's training set, and the image that of epoch "
           "E: decoded, cropped and augmented by the options of RUN.yaml, before mixing and "
           "attack. `advprop data plan` tells which step trains on it.",
};

static enum apd_code build_raw(const struct cat_args *args, struct apd_command_line *line,
                               struct apd_err *err)
{
    APD_TRY(apd_command_line_add(line, err, "--data-cat"));
    if (args->out != NULL)
        APD_TRY(apd_command_line_add(line, err, "--out=%s", args->out));
    APD_TRY(apd_command_line_add(line, err, "--"));
    APD_TRY(apd_command_line_add(line, err, "%s", args->argument[0]));
    return apd_command_line_add(line, err, "%s", args->argument[1]);
}

static enum apd_code build_view(const struct cat_args *args, struct apd_command_line *line,
                                struct apd_err *err)
{
    struct apd_overrides overrides = {.path = args->config};
    struct apd_config config;

    for (int i = 1; i < args->count; i++)
        overrides.text[overrides.count++] = args->argument[i];
    APD_TRY(apd_overrides_load(&overrides, &config, err));
    APD_TRY(apd_config_check(&config, 0, err));
    APD_TRY(apd_command_line_add(line, err, "--data-view=%s", args->argument[0]));
    APD_TRY(apd_command_line_add(line, err, "--config=%s", args->config));
    if (args->eval)
        APD_TRY(apd_command_line_add(line, err, "--test-view"));
    else
        APD_TRY(apd_command_line_add(line, err, "--epoch=%ld", args->epoch < 0 ? 0 : args->epoch));
    if (args->out != NULL)
        APD_TRY(apd_command_line_add(line, err, "--out=%s", args->out));
    for (size_t i = 0; i < overrides.count; i++)
        APD_TRY(apd_command_line_add(line, err, "%s", overrides.text[i]));
    return APD_OK;
}

int apd_cmd_data_cat(int argc, char **argv)
{
    struct cat_args args = {.epoch = -1};
    struct apd_command_line line = {0};
    struct apd_err err = {0};
    char path[APD_PROGRAM_MAX];
    enum apd_code rc;

    apd_cli_parse(&argp, argc, argv, &args);
    rc = apd_program_find("advprop-worker", path, &err);
    if (rc == APD_OK)
        rc = apd_command_line_add(&line, &err, "%s", path);
    if (rc == APD_OK)
        rc = args.config != NULL ? build_view(&args, &line, &err) : build_raw(&args, &line, &err);
    if (rc == APD_OK)
        (void)apd_launch_exec(&line, &err);
    apd_command_line_fini(&line);
    return apd_cli_fail(argv[0], &err);
}
