/* See command.h. */
#include "cli/command.h"
#include "proto/nearest.h"
#include "proto/run_dir.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAMES_MAX 64

/* Long names argp adds by itself. */
static const char *const own_options[] = {"help", "usage", "version"};

static size_t collect_options(const struct argp *argp, const char **names)
{
    size_t n = sizeof own_options / sizeof *own_options;

    memcpy(names, own_options, sizeof own_options);
    for (const struct argp_option *option = argp->options; option != NULL && option->name != NULL;
         option++)
        if (n < NAMES_MAX)
            names[n++] = option->name;
    return n;
}

/* getopt takes any unambiguous beginning of a name. */
static int known_option(const char *word, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strncmp(word, names[i], strlen(word)) == 0)
            return 1;
    return 0;
}

static void refuse_unknown_option(const struct argp *argp, const char *command, const char *arg)
{
    const char *names[NAMES_MAX], *nearest;
    size_t count = collect_options(argp, names);
    char word[64];

    (void)snprintf(word, sizeof word, "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
    if (known_option(word, names, count))
        return;
    nearest = apd_nearest(word, names, count);
    fprintf(stderr, "%s: unknown option --%s%s%s (see %s --help)\n", command, word,
            nearest != NULL ? "; the nearest one is --" : "", nearest != NULL ? nearest : "",
            command);
    exit(APD_EXIT_USAGE);
}

void apd_cli_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    error_t failed;

    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strncmp(argv[i], "--", 2) == 0)
            refuse_unknown_option(argp, argv[0], argv[i]);
    failed = argp_parse(argp, argc, argv, 0, NULL, input);
    if (failed != 0) {
        fprintf(stderr, "%s: %s\n", argv[0], strerror(failed));
        exit(APD_EXIT_INTERNAL);
    }
}

static void print_commands(const char *name, const char *doc, const struct apd_command *commands,
                           size_t count, FILE *out)
{
    fprintf(out, "Usage: %s COMMAND [ARGUMENT...]\n%s\n\n", name, doc);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\n%s COMMAND --help explains one of them.\n", name);
}

static int refuse_command(const char *name, const struct apd_command *commands, size_t count,
                          const char *word)
{
    const char *names[NAMES_MAX], *nearest;

    for (size_t i = 0; i < count; i++)
        names[i] = commands[i].name;
    nearest = apd_nearest(word, names, count);
    fprintf(stderr, "%s: unknown command %s%s%s (see %s --help)\n", name, word,
            nearest != NULL ? "; the nearest one is " : "", nearest != NULL ? nearest : "", name);
    return APD_EXIT_USAGE;
}

int apd_cli_dispatch(const char *name, const char *doc, const struct apd_command *commands,
                     size_t count, int argc, char **argv)
{
    char full[128];

    if (argc < 2) {
        print_commands(name, doc, commands, count, stderr);
        return APD_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_commands(name, doc, commands, count, stdout);
        return APD_EXIT_DONE;
    }
    for (size_t i = 0; i < count; i++)
        if (strcmp(argv[1], commands[i].name) == 0) {
            (void)snprintf(full, sizeof full, "%s %s", name, argv[1]);
            argv[1] = full;
            return commands[i].run(argc - 1, argv + 1);
        }
    return refuse_command(name, commands, count, argv[1]);
}

int apd_cli_fail(const char *name, const struct apd_err *err)
{
    fprintf(stderr, "%s: %s\n", name, err->msg);
    return apd_exit_status(err->code);
}

enum apd_code apd_cli_run_dir(const char *given, const char **out, struct apd_err *err)
{
    char path[APD_RUN_PATH_MAX];

    *out = given != NULL ? given : ".";
    APD_TRY(apd_run_dir_path(*out, APD_RUN_CONFIG, path, err));
    if (access(path, F_OK) == 0)
        return APD_OK;
    if (given == NULL)
        return apd_fail(err, APD_USAGE,
                        "no RUN_DIR given, and the current directory is none (no " APD_RUN_CONFIG
                        ")");
    return apd_fail(err, APD_USAGE, "%s is no run directory: %s: %s", given, path, strerror(errno));
}

error_t apd_cli_run_dir_parser(int key, char *arg, struct argp_state *state)
{
    const char **run_dir = state->input;

    if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    if (*run_dir != NULL)
        argp_error(state, "one RUN_DIR, please: %s or %s?", *run_dir, arg);
    *run_dir = arg;
    return 0;
}

long apd_cli_number(const char *option, const char *text, long least, struct argp_state *state)
{
    char *end;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < least)
        argp_error(state, "--%s: expected a whole number of at least %ld, found \"%s\"", option,
                   least, text);
    return value;
}

double apd_cli_real(const char *option, const char *text, double least, struct argp_state *state)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !isfinite(value) || value < least)
        argp_error(state, "--%s: expected a number of at least %g, found \"%s\"", option, least,
                   text);
    return value;
}
