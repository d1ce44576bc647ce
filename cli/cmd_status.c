/* advprop status [RUN_DIR]: one look, live or from status.json. */
#include "cli/client.h"
#include "cli/command.h"
#include "cli/status_source.h"
#include "cli/view.h"

struct status_args {
    const char *run_dir;
    int json, shards;
};

static const struct argp_option options[] = {
    {"json", 'j', NULL, 0, "print the messages as JSON", 0},
    {"shards", 's', NULL, 0, "also show which lane reads which shards", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct status_args *args = state->input;

    switch (key) {
    case 'j':
        args->json = 1;
        return 0;
    case 's':
        args->shards = 1;
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
    .doc = "Shows a run: progress, losses, receipts, accuracy, checkpoint and workers. When no "
           "coordinator runs, it shows the last status it wrote and says so.\v"
           "RUN_DIR defaults to the current directory.",
};

static enum apd_code ask_shards(const char *run_dir, json_t **out, struct apd_err *err)
{
    Advprop__V1__GetShards get = ADVPROP__V1__GET_SHARDS__INIT;
    Advprop__V1__ServerReply *reply = NULL;
    Advprop__V1__ClientRequest request;
    enum apd_code rc;

    apd_request_init(&request, ADVPROP__V1__CLIENT_REQUEST__KIND_GET_SHARDS, &get);
    APD_TRY(apd_client_ask(run_dir, &request, APD_CLIENT_TIMEOUT_MS, &reply, err));
    rc = apd_reply_json(
        reply->kind_case == ADVPROP__V1__SERVER_REPLY__KIND_SHARDS ? &reply->shards->base : NULL,
        out, err);
    advprop__v1__server_reply__free_unpacked(reply, NULL);
    return rc;
}

/* *out_live: whether a coordinator answered. */
static enum apd_code find_status(const char *run_dir, json_t **out, int *out_live,
                                 struct apd_err *err)
{
    struct apd_err no_file = {0};
    enum apd_code rc = apd_status_ask(run_dir, out, err);

    *out_live = rc == APD_OK;
    if (rc != APD_IO || err->sys == 0) /* it answered, or the answer was a refusal */
        return rc;
    if (apd_status_file(run_dir, out, &no_file) == APD_OK)
        return APD_OK;
    return apd_prefix(err, "%s", no_file.msg);
}

static enum apd_code show(const struct status_args *args, struct apd_err *err)
{
    json_t *status = NULL, *shards = NULL;
    enum apd_code rc;
    int live = 0;

    APD_GO(find_status(args->run_dir, &status, &live, err));
    if (args->shards)
        APD_GO(ask_shards(args->run_dir, &shards, err));
    if (!live)
        fputs("no coordinator runs; this is the last status it wrote\n", stderr);
    if (args->json) {
        if (shards != NULL && json_object_set(status, "shards", shards) != 0) {
            rc = apd_fail(err, APD_NOMEM, "memory for the status as JSON");
            goto done;
        }
        json_dumpf(status, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        putchar('\n');
    } else {
        apd_view_status(status, stdout);
        if (shards != NULL) {
            putchar('\n');
            apd_view_shards(shards, stdout);
        }
    }
done:
    json_decref(status);
    json_decref(shards);
    return rc;
}

int apd_cmd_status(int argc, char **argv)
{
    struct status_args args = {0};
    struct apd_err err = {0};

    apd_cli_parse(&argp, argc, argv, &args);
    if (apd_cli_run_dir(args.run_dir, &args.run_dir, &err) != APD_OK || show(&args, &err) != APD_OK)
        return apd_cli_fail(argv[0], &err);
    return APD_EXIT_DONE;
}
