/* advprop watch [RUN_DIR]: follows a run until its coordinator ends. */
#include "cli/client.h"
#include "cli/command.h"
#include "cli/fields.h"
#include "cli/progress.h"
#include "cli/status_source.h"

#include <string.h>

#define SILENCE_MS 60000 /* longer than any interval a reply may take */

struct watch_args {
    const char *run_dir;
    double interval_s;
    int json;
};

static const struct argp_option options[] = {
    {"interval", 'i', "SECONDS", 0, "time between two looks (1; at least 0.05)", 0},
    {"json", 'j', NULL, 0, "print one JSON object a line", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct watch_args *args = state->input;

    switch (key) {
    case 'i':
        args->interval_s = apd_cli_real("interval", arg, 0.05, state);
        if (args->interval_s > 3600)
            argp_error(state, "--interval: at most 3600 seconds");
        return 0;
    case 'j':
        args->json = 1;
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
        "Follows a run: epoch, step, images per second, the losses of clean, noise and attacked "
        "images, learning rate, time left. On a terminal one line is redrawn, elsewhere each look "
        "is a line.\vEnds when the coordinator does: 0 if the run is done, 69 otherwise.",
};

/* Shows replies until the connection ends; *out_done: the last state seen was "done". */
static enum apd_code follow(struct apd_client *client, const struct watch_args *args, int *out_done,
                            struct apd_err *err)
{
    struct apd_progress progress;

    apd_progress_init(&progress, stdout, 0);
    for (;;) {
        Advprop__V1__ServerReply *reply = NULL;
        json_t *status = NULL;
        enum apd_code rc =
            apd_client_next(client, (int)(1000 * args->interval_s) + SILENCE_MS, &reply, err);

        if (rc == APD_OK) {
            rc = apd_reply_json(reply->kind_case == ADVPROP__V1__SERVER_REPLY__KIND_STATUS
                                    ? &reply->status->base
                                    : NULL,
                                &status, err);
            advprop__v1__server_reply__free_unpacked(reply, NULL);
        }
        if (rc != APD_OK) {
            apd_progress_break(&progress);
            return rc;
        }
        *out_done = strcmp(apd_field_text(status, "state"), "done") == 0;
        if (args->json) {
            json_dumpf(status, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
            putchar('\n');
            fflush(stdout);
        } else {
            apd_progress_show(&progress, status);
        }
        json_decref(status);
    }
}

static enum apd_code watch(const struct watch_args *args, int *out_done, struct apd_err *err)
{
    Advprop__V1__Watch message = ADVPROP__V1__WATCH__INIT;
    Advprop__V1__ClientRequest request;
    struct apd_client *client = NULL;
    enum apd_code rc;

    message.interval_ms = (uint32_t)(1000 * args->interval_s);
    apd_request_init(&request, ADVPROP__V1__CLIENT_REQUEST__KIND_WATCH, &message);
    APD_GO(apd_client_open(args->run_dir, &client, err));
    APD_GO(apd_client_send(client, &request, err));
    rc = follow(client, args, out_done, err);
done:
    apd_client_close(&client);
    return rc;
}

int apd_cmd_watch(int argc, char **argv)
{
    struct watch_args args = {.interval_s = 1};
    struct apd_err err = {0};
    int done = 0;

    apd_cli_parse(&argp, argc, argv, &args);
    if (apd_cli_run_dir(args.run_dir, &args.run_dir, &err) != APD_OK)
        return apd_cli_fail(argv[0], &err);
    if (watch(&args, &done, &err) != APD_OK && !done)
        return apd_cli_fail(argv[0], &err);
    return APD_EXIT_DONE;
}
