/* advprop data: the table, and data plan, which becomes `advprop-worker --data-plan ...`. */
#include "cli/cmd_data_sets.h"
#include "cli/command.h"
#include "cli/launch.h"
#include "cli/overrides.h"
#include "cli/programs.h"

struct plan_args {
    struct apd_overrides config;
    long epoch, steps;
};

static const struct argp_option options[] = {
    {"epoch", 'e', "E", 0, "from the first step of this epoch on, counted from 0 (0)", 0},
    {"steps", 'n', "N", 0, "so many steps (1)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct plan_args *args = state->input;

    switch (key) {
    case 'e':
        args->epoch = apd_cli_number("epoch", arg, 0, state);
        return 0;
    case 'n':
        args->steps = apd_cli_number("steps", arg, 1, state);
        return 0;
    case ARGP_KEY_ARG:
        return apd_overrides_take(&args->config, arg, state);
    case ARGP_KEY_END:
        if (args->config.path == NULL)
            argp_error(state, "which RUN.yaml?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "RUN.yaml [key=value ...]",
    .doc = "Prints which samples each lane trains on in each step, clean and auxiliary, without "
           "training. "
           "The plan is a function of the configuration and the data set alone.",
};

static enum apd_code build(const struct plan_args *args, struct apd_command_line *line,
                           struct apd_err *err)
{
    char path[APD_PROGRAM_MAX];
    struct apd_config config;

    APD_TRY(apd_overrides_load(&args->config, &config, err));
    APD_TRY(apd_config_check(&config, 0, err));
    APD_TRY(apd_program_find("advprop-worker", path, err));
    APD_TRY(apd_command_line_add(line, err, "%s", path));
    APD_TRY(apd_command_line_add(line, err, "--data-plan"));
    APD_TRY(apd_command_line_add(line, err, "--config"));
    APD_TRY(apd_command_line_add(line, err, "%s", args->config.path));
    APD_TRY(apd_command_line_add(line, err, "--epoch=%ld", args->epoch));
    APD_TRY(apd_command_line_add(line, err, "--steps=%ld", args->steps));
    for (size_t i = 0; i < args->config.count; i++)
        APD_TRY(apd_command_line_add(line, err, "%s", args->config.text[i]));
    return APD_OK;
}

static int data_plan(int argc, char **argv)
{
    struct plan_args args = {.steps = 1};
    struct apd_command_line line = {0};
    struct apd_err err = {0};

    apd_cli_parse(&argp, argc, argv, &args);
    if (build(&args, &line, &err) == APD_OK)
        (void)apd_launch_exec(&line, &err);
    apd_command_line_fini(&line);
    return apd_cli_fail(argv[0], &err);
}

static const struct apd_command commands[] = {
    {"index", "write the manifest of a data set", apd_cmd_data_index},
    {"verify", "compare a data set with its manifest", apd_cmd_data_verify},
    {"stat", "what is in a data set", apd_cmd_data_stat},
    {"pack", "make tar shards of a data set", apd_cmd_data_pack},
    {"cat", "one image of a data set", apd_cmd_data_cat},
    {"corrupt", "a data set's images under corruptions", apd_cmd_data_corrupt},
    {"plan", "which samples each lane trains on", data_plan},
};

int apd_cmd_data(int argc, char **argv)
{
    return apd_cli_dispatch(argv[0], "Data sets, and which samples a run trains on.", commands,
                            sizeof commands / sizeof *commands, argc, argv);
}
