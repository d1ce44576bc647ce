/* advprop events [RUN_DIR]: what happened, from the coordinator or, without one, from events.jsonl.
 */
#include "cli/client.h"
#include "cli/command.h"
#include "cli/fields.h"
#include "cli/status_source.h"
#include "cli/view.h"
#include "proto/run_dir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct events_args {
    const char *run_dir;
    long after, limit;
    int json;
};

static const struct argp_option options[] = {
    {"after", 'a', "NUMBER", 0, "only events with a greater number", 0},
    {"limit", 'n', "COUNT", 0, "at most so many, the first ones (100)", 0},
    {"json", 'j', NULL, 0, "print one JSON object a line", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct events_args *args = state->input;

    switch (key) {
    case 'a':
        args->after = apd_cli_number("after", arg, 0, state);
        return 0;
    case 'n':
        args->limit = apd_cli_number("limit", arg, 1, state);
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
    .doc = "Shows what happened in a run: starts, workers, states, checkpoints, failures. When no "
           "coordinator runs, it reads events.jsonl and says so.",
};

static void print_event(const struct events_args *args, const json_t *event)
{
    if (!args->json) {
        apd_view_event(event, stdout);
        return;
    }
    json_dumpf(event, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
    putchar('\n');
}

static enum apd_code from_socket(const struct events_args *args, struct apd_err *err)
{
    Advprop__V1__GetEvents get = ADVPROP__V1__GET_EVENTS__INIT;
    Advprop__V1__ServerReply *reply = NULL;
    Advprop__V1__ClientRequest request;
    json_t *events = NULL;
    const json_t *list;
    enum apd_code rc;

    get.after = (uint64_t)args->after;
    get.limit = (uint32_t)(args->limit < 1000000 ? args->limit : 1000000);
    apd_request_init(&request, ADVPROP__V1__CLIENT_REQUEST__KIND_GET_EVENTS, &get);
    APD_GO(apd_client_ask(args->run_dir, &request, APD_CLIENT_TIMEOUT_MS, &reply, err));
    APD_GO(apd_reply_json(
        reply->kind_case == ADVPROP__V1__SERVER_REPLY__KIND_EVENTS ? &reply->events->base : NULL,
        &events, err));
    list = json_object_get(events, "event");
    for (size_t i = 0; i < json_array_size(list); i++)
        print_event(args, json_array_get(list, i));
done:
    json_decref(events);
    if (reply != NULL)
        advprop__v1__server_reply__free_unpacked(reply, NULL);
    return rc;
}

/* A torn last line (power cut) is passed over; the coordinator's next start writes a new one. */
static enum apd_code from_file(const struct events_args *args, struct apd_err *err)
{
    char path[APD_RUN_PATH_MAX];
    long shown = 0;
    char *line = NULL;
    size_t room = 0;
    FILE *file;

    APD_TRY(apd_run_dir_path(args->run_dir, APD_RUN_EVENTS, path, err));
    file = fopen(path, "re");
    if (file == NULL)
        return apd_fail_errno(err, "no coordinator runs, and %s", path);
    fprintf(stderr, "no coordinator runs; this is %s\n", path);
    while (shown < args->limit && getline(&line, &room, file) >= 0) {
        json_t *event = json_loads(line, 0, NULL);

        if (json_is_object(event) && apd_field_u64(event, "number") > (uint64_t)args->after) {
            print_event(args, event);
            shown++;
        }
        json_decref(event);
    }
    free(line);
    fclose(file);
    return APD_OK;
}

int apd_cmd_events(int argc, char **argv)
{
    struct events_args args = {.limit = 100};
    struct apd_err err = {0};
    enum apd_code rc;

    apd_cli_parse(&argp, argc, argv, &args);
    if (apd_cli_run_dir(args.run_dir, &args.run_dir, &err) != APD_OK)
        return apd_cli_fail(argv[0], &err);
    rc = from_socket(&args, &err);
    if (rc == APD_IO && err.sys != 0)
        rc = from_file(&args, &err);
    return rc == APD_OK ? APD_EXIT_DONE : apd_cli_fail(argv[0], &err);
}
