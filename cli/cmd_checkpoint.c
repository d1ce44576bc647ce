/* advprop checkpoint: write one now, and wait until it is committed. */
#include "cli/command.h"
#include "cli/control.h"

#include <inttypes.h>
#include <stdio.h>

struct checkpoint_args {
    const char *run_dir;
    double timeout_s;
};

static const struct argp_option options[] = {
    {"timeout", 't', "SECONDS", 0, "how long to wait for the commit (600)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct checkpoint_args *args = state->input;

    switch (key) {
    case 't':
        args->timeout_s = apd_cli_real("timeout", arg, 0.001, state);
        if (args->timeout_s > 86400)
            argp_error(state, "--timeout: at most 86400 seconds");
        return 0;
    case ARGP_KEY_ARG:
        state->input = &args->run_dir;
        apd_cli_run_dir_parser(key, arg, state);
        state->input = args;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "[RUN_DIR]",
    .doc =
        "Asks a run for a checkpoint and waits until it is committed. Prints its step, SHA-256 and "
        "path below the run directory.",
};

int apd_cmd_checkpoint(int argc, char **argv)
{
    struct checkpoint_args args = {.timeout_s = 600};
    Advprop__V1__ServerReply *reply = NULL;
    struct apd_err err = {0};

    apd_cli_parse(&argp, argc, argv, &args);
    if (apd_cli_run_dir(args.run_dir, &args.run_dir, &err) != APD_OK ||
        apd_control_checkpoint(args.run_dir, (int)(1000 * args.timeout_s), &reply, &err) != APD_OK)
        return apd_cli_fail(argv[0], &err);
    printf("step %" PRIu64 "  %s  %s\n", reply->checkpoint->step, reply->checkpoint->sha256,
           reply->checkpoint->path);
    advprop__v1__server_reply__free_unpacked(reply, NULL);
    return APD_EXIT_DONE;
}
