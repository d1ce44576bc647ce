/* advprop doctor: becomes `advprop-worker --doctor ...`, which is linked to what has to be asked.
 * Here only what can be said when that program does not start. */
#include "cli/command.h"
#include "cli/launch.h"
#include "cli/programs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOT_LOADED = 127 }; /* of the dynamic loader */

struct doctor_args {
    int json, test;
};

static const struct argp_option options[] = {
    {"json", 'j', NULL, 0, "print JSON", 0},
    {"selftest", 't', NULL, 0, "also run some steps on the GPU and compare them with the CPU's", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct doctor_args *args = state->input;

    switch (key) {
    case 'j':
        args->json = 1;
        return 0;
    case 't':
        args->test = 1;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "no arguments are taken, found %s", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc =
        "Shows what this host has for training - driver, GPUs, libraries, limits - and says what "
        "is wrong with it. Exit status 0 if training with `device: auto` can run here, 69 if "
        "not.",
};

static enum apd_code make_line(const struct doctor_args *args, struct apd_command_line *line,
                               struct apd_err *err)
{
    char path[APD_PROGRAM_MAX];

    APD_TRY(apd_program_find("advprop-worker", path, err));
    APD_TRY(apd_command_line_add(line, err, "%s", path));
    APD_TRY(apd_command_line_add(line, err, "--doctor"));
    if (args->json)
        APD_TRY(apd_command_line_add(line, err, "--json"));
    if (args->test)
        APD_TRY(apd_command_line_add(line, err, "--selftest"));
    return APD_OK;
}

static enum apd_code run_line(const struct apd_command_line *line, int *out_status,
                              struct apd_err *err)
{
    pid_t pid = fork();
    int status;

    if (pid < 0)
        return apd_fail_errno(err, "fork");
    if (pid == 0) {
        (void)apd_launch_exec(line, err);
        _exit(NOT_LOADED);
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return apd_fail_errno(err, "waiting for %s", line->argv[0]);
    if (WIFSIGNALED(status))
        return apd_fail(err, APD_DEVICE, "%s was killed by signal %d: %s", line->argv[0],
                        WTERMSIG(status), strsignal(WTERMSIG(status)));
    *out_status = WEXITSTATUS(status);
    if (*out_status == NOT_LOADED)
        return apd_fail(err, APD_DEVICE,
                        "%s does not start: a library it was built with is missing; install it, or "
                        "build again",
                        line->argv[0]);
    return APD_OK;
}

int apd_cmd_doctor(int argc, char **argv)
{
    struct apd_command_line line = {0};
    struct doctor_args args = {0};
    struct apd_err err = {0};
    int status = APD_EXIT_INTERNAL;

    apd_cli_parse(&argp, argc, argv, &args);
    if (make_line(&args, &line, &err) != APD_OK || run_line(&line, &status, &err) != APD_OK)
        status = apd_cli_fail(argv[0], &err);
    apd_command_line_fini(&line);
    return status;
}
