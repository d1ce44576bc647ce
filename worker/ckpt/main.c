/* The command line of `advprop-worker --ckpt`. It is written by `advprop ckpt`, which has checked
 * it and explains it to people. */
#include "worker/ckpt/ckpt.h"

#include "worker/show.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_DIFFERENT = 1 }; /* as diff(1) */

enum { KEY_TOLERANCE = 256, KEY_ARCH, KEY_TENSORS, KEY_FULL, KEY_EMA, KEY_JSON };

static const struct argp_option options[] = {
    {"output", 'o', "FILE", 0, "export, import: file to write", 0},
    {"arch", KEY_ARCH, "NAME", 0, "import: expect this network", 0},
    {"full", KEY_FULL, NULL, 0, "export: auxiliary BN, too", 0},
    {"ema", KEY_EMA, NULL, 0, "export: the average instead of the weights", 0},
    {"tolerance", KEY_TOLERANCE, "T", 0, "diff: values this near are equal (0)", 0},
    {"tensors", KEY_TENSORS, NULL, 0, "ls: list tensors, too", 0},
    {"json", KEY_JSON, NULL, 0, "ls, verify, diff: JSON", 0},
    {0},
};

enum command { LS, VERIFY, DIFF, EXPORT, IMPORT, COMMANDS };

static const char *const commands[COMMANDS] = {"ls", "verify", "diff", "export", "import"};

struct arguments {
    int command; /* -1: not yet */
    int paths;
    struct apd_ckpt_options options;
};

static void take_command(struct arguments *arguments, const char *word, struct argp_state *state)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(word, commands[i]) == 0)
            arguments->command = i;
    if (arguments->command < 0)
        argp_error(state, "unknown command %s", word);
}

static void take_path(struct arguments *arguments, const char *path, struct argp_state *state)
{
    if (arguments->paths == 2)
        argp_error(state, "too many files");
    arguments->options.path[arguments->paths++] = path;
}

static void check(const struct arguments *arguments, struct argp_state *state)
{
    int writes = arguments->command == EXPORT || arguments->command == IMPORT;

    if (arguments->command < 0)
        argp_error(state, "which command?");
    if (arguments->paths != (arguments->command == DIFF ? 2 : 1))
        argp_error(state, "%d files are a wrong number", arguments->paths);
    if (writes && arguments->options.output == NULL)
        argp_error(state, "-o FILE is missing");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *arguments = state->input;
    char *end;

    switch (key) {
    case 'o':
        arguments->options.output = arg;
        return 0;
    case KEY_ARCH:
        arguments->options.arch = arg;
        return 0;
    case KEY_FULL:
        arguments->options.full = 1;
        return 0;
    case KEY_EMA:
        arguments->options.ema = 1;
        return 0;
    case KEY_TOLERANCE:
        arguments->options.tolerance = strtod(arg, &end);
        if (end == arg || *end != '\0' || !(arguments->options.tolerance >= 0))
            argp_error(state, "--tolerance: expected a number of at least 0, found \"%s\"", arg);
        return 0;
    case KEY_TENSORS:
        arguments->options.tensors = 1;
        return 0;
    case KEY_JSON:
        arguments->options.json = 1;
        return 0;
    case ARGP_KEY_ARG:
        if (arguments->command < 0)
            take_command(arguments, arg, state);
        else
            take_path(arguments, arg, state);
        return 0;
    case ARGP_KEY_END:
        check(arguments, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    options, parse, "COMMAND FILE [FILE]", "See advprop ckpt --help.", NULL, NULL, NULL};

static enum apd_code run(const struct arguments *arguments, int *out_equal, struct apd_err *err)
{
    switch (arguments->command) {
    case LS:
        return apd_ckpt_ls(&arguments->options, err);
    case VERIFY:
        return apd_ckpt_verify(&arguments->options, err);
    case DIFF:
        return apd_ckpt_diff(&arguments->options, out_equal, err);
    case EXPORT:
        return apd_ckpt_export(&arguments->options, err);
    default:
        return apd_ckpt_import(&arguments->options, err);
    }
}

int apd_ckpt_main(int argc, char **argv)
{
    struct arguments arguments = {.command = -1};
    struct apd_err err = {0};
    enum apd_code rc;
    int equal = 1;

    argp_err_exit_status = APD_EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &arguments);
    rc = run(&arguments, &equal, &err);
    if ((fflush(stdout) != 0 || ferror(stdout)) && rc == APD_OK)
        rc = apd_fail_errno(&err, "writing the result");
    if (rc != APD_OK) {
        fprintf(stderr, "advprop ckpt %s: ", commands[arguments.command]);
        apd_show_text(err.msg, 0, stderr);
        fputc('\n', stderr);
        return apd_exit_status(rc);
    }
    return equal ? APD_EXIT_DONE : EXIT_DIFFERENT;
}
