/* advprop config check | show | explain: the configuration without a run. */
#include "cli/command.h"
#include "cli/overrides.h"
#include "proto/config.h"
#include "proto/run_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

struct file_args {
    struct apd_overrides config;
    long workers;
};

static const struct argp_option check_options[] = {
    {"workers", 'w', "N", 0, "also check that so many workers make sense", 0},
    {0},
};

static error_t parse_file(int key, char *arg, struct argp_state *state)
{
    struct file_args *args = state->input;

    switch (key) {
    case 'w':
        args->workers = apd_cli_number("workers", arg, 1, state);
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

static const struct argp check_argp = {
    .options = check_options,
    .parser = parse_file,
    .args_doc = "RUN.yaml [key=value ...]",
    .doc = "Checks a configuration: names, types, ranges and combinations. Says nothing more than "
           "\"ok\" "
           "and what is really trained; 78 and a message if something is wrong.",
};

static const struct argp show_argp = {
    .parser = parse_file,
    .args_doc = "(RUN.yaml | RUN_DIR) [key=value ...]",
    .doc = "Prints the effective configuration, every option of it.",
};

static int config_check(int argc, char **argv)
{
    double epochs, milestones[APD_MILESTONES];
    struct file_args args = {0};
    struct apd_config config;
    struct apd_err err = {0};
    uint32_t clean, aux;

    apd_cli_parse(&check_argp, argc, argv, &args);
    if (apd_overrides_load(&args.config, &config, &err) != APD_OK ||
        apd_config_check(&config, args.workers, &err) != APD_OK)
        return apd_cli_fail(argv[0], &err);
    apd_config_lane_split(&config, &clean, &aux);
    apd_config_budget(&config, &epochs, milestones);
    printf("ok: %g epochs, %lld lanes of %u clean and %u auxiliary images\n", epochs,
           (long long)config.train.lanes, clean, aux);
    return APD_EXIT_DONE;
}

static int config_show(int argc, char **argv)
{
    char path[APD_RUN_PATH_MAX];
    struct file_args args = {0};
    struct apd_config config;
    struct apd_err err = {0};
    char *yaml = NULL;
    struct stat st;

    apd_cli_parse(&show_argp, argc, argv, &args);
    if (stat(args.config.path, &st) == 0 && S_ISDIR(st.st_mode)) {
        if (apd_run_dir_path(args.config.path, APD_RUN_CONFIG, path, &err) != APD_OK)
            return apd_cli_fail(argv[0], &err);
        args.config.path = path;
    }
    if (apd_overrides_load(&args.config, &config, &err) != APD_OK ||
        apd_config_print(&config, &yaml, &err) != APD_OK)
        return apd_cli_fail(argv[0], &err);
    fputs(yaml, stdout);
    free(yaml);
    return APD_EXIT_DONE;
}

struct explain_args {
    const char *key;
    int markdown;
};

static const struct argp_option explain_options[] = {
    {"markdown", 'm', NULL, 0, "as the reference page docs/run-yaml.md", 0},
    {0},
};

static error_t parse_explain(int key, char *arg, struct argp_state *state)
{
    struct explain_args *args = state->input;

    switch (key) {
    case 'm':
        args->markdown = 1;
        return 0;
    case ARGP_KEY_ARG:
        if (args->key != NULL)
            argp_error(state, "one KEY, please");
        args->key = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp explain_argp = {
    .options = explain_options,
    .parser = parse_explain,
    .args_doc = "[KEY]",
    .doc = "Explains an option of run.yaml, or all of them: default, unit, range, meaning.",
};

static int config_explain(int argc, char **argv)
{
    struct explain_args args = {0};
    struct apd_err err = {0};

    apd_cli_parse(&explain_argp, argc, argv, &args);
    if (apd_config_explain(args.key, args.markdown, stdout, &err) != APD_OK)
        return apd_cli_fail(argv[0], &err);
    return APD_EXIT_DONE;
}

static const struct apd_command commands[] = {
    {"check", "check a configuration", config_check},
    {"show", "print the effective configuration", config_show},
    {"explain", "explain one option or all", config_explain},
};

int apd_cmd_config(int argc, char **argv)
{
    return apd_cli_dispatch(argv[0], "Checks, shows and explains run.yaml.", commands,
                            sizeof commands / sizeof *commands, argc, argv);
}
