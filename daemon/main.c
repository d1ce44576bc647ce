/* advpropd: rank 0 of the job. Prepares the run, tells the workers over MPI where the coordinator
 * listens, runs its loop without touching MPI, and ends the job.
 *
 * The order of MPI calls is the workers' order: split by host, broadcast of the wire-up, split into
 * coordinator and workers; then nothing until MPI_Finalize or MPI_Abort. */
#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/prepare.h"
#include "proto/wireup.h"

#include <argp.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOCK_WAIT_MS 10000

const char *argp_program_version = "advpropd " APD_VERSION;

struct arguments {
    const char *run_dir, *config_path;
    const char **overrides;
    size_t override_count;
};

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct arguments *arguments = state->input;

    switch (key) {
    case 'r':
        arguments->run_dir = text;
        return 0;
    case 'c':
        arguments->config_path = text;
        return 0;
    case ARGP_KEY_ARG:
        if (strchr(text, '=') == NULL)
            argp_error(state, "expected key=value, found \"%s\"", text);
        arguments->overrides[arguments->override_count++] = text;
        return 0;
    case ARGP_KEY_END:
        if (arguments->run_dir == NULL)
            argp_error(state, "--run DIR is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"run", 'r', "DIR", 0, "Run directory; made if it is missing", 0},
    {"config", 'c', "FILE", 0, "Configuration (default: DIR/config.yaml, else the defaults)", 0},
    {0},
};

static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .args_doc = "[KEY=VALUE ...]",
    .doc =
        "Coordinator of a training run: rank 0 of\n"
        "  mpirun -n 1 advpropd --run DIR ... : -n W advprop-worker --run DIR ...\v"
        "Exit status: 0 done, 64 usage, 65 bad data, 69 unavailable, 70 internal error, 75 stopped "
        "before the end (the same command goes on), 78 configuration.",
};

/* Whether all ranks are on this host. Collective. */
static int all_on_this_host(int ranks)
{
    MPI_Comm host;
    int here;

    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
    MPI_Comm_size(host, &here);
    MPI_Comm_free(&host);
    return here == ranks;
}

/* Collective, the second half of the wire-up. */
static void tell_workers(struct apd_wireup *wireup)
{
    MPI_Comm none;

    MPI_Bcast(wireup, (int)sizeof *wireup, MPI_BYTE, 0, MPI_COMM_WORLD);
    MPI_Comm_split(MPI_COMM_WORLD, MPI_UNDEFINED, 0, &none);
}

static enum apd_code start(const struct arguments *arguments, uint32_t workers, int local_only,
                           struct apd_prepared *prepared, struct apd_daemon **daemon,
                           struct apd_wireup *wireup, struct apd_err *err)
{
    const struct apd_prepare_args args = {
        .run_dir = arguments->run_dir,
        .config_path = arguments->config_path,
        .overrides = arguments->overrides,
        .override_count = arguments->override_count,
        .workers = workers,
        .lock_wait_ms = LOCK_WAIT_MS,
    };

    if (workers == 0)
        return apd_fail(
            err, APD_USAGE,
            "no workers: start with mpirun -n 1 advpropd ... : -n W advprop-worker ...");
    APD_TRY(apd_prepare(&args, prepared, err));
    apd_log_init("advpropd", 0,
                 (enum apd_log_level)apd_log_level_parse(prepared->config.log.level));
    return apd_daemon_create(prepared, workers, local_only, 1, daemon, wireup, err);
}

/* Runs the coordinator between the two halves of MPI; returns the exit status. */
static int coordinate(const struct arguments *arguments, int ranks)
{
    struct apd_prepared prepared = {0};
    struct apd_daemon *daemon = NULL;
    struct apd_wireup wireup = {0};
    struct apd_err err;
    int local_only = all_on_this_host(ranks), status = APD_EXIT_DONE, abort = 0;

    if (start(arguments, (uint32_t)ranks - 1, local_only, &prepared, &daemon, &wireup, &err) !=
        APD_OK) {
        status = apd_exit_status(err.code);
        apd_log(APD_LOG_ERROR, "cannot start", "error=\"%s\" status=%d", err.msg, status);
        wireup = (struct apd_wireup){.magic = APD_WIREUP_MAGIC, .failed = 1, .status = status};
        (void)snprintf(wireup.text, sizeof wireup.text, "%s", err.msg);
        (void)snprintf(wireup.version, sizeof wireup.version, "%s", APD_VERSION);
    }
    tell_workers(&wireup);
    if (daemon != NULL)
        status = apd_daemon_run(daemon, &abort);
    explicit_bzero(&wireup, sizeof wireup);
    apd_daemon_destroy(&daemon);
    apd_prepared_fini(&prepared);
    if (abort)
        MPI_Abort(MPI_COMM_WORLD, status);
    return status;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {0};
    int ranks, provided, status;

    apd_log_init("advpropd", 0, APD_LOG_INFO);
    argp_err_exit_status = APD_EXIT_USAGE;
    arguments.overrides = calloc((size_t)argc, sizeof *arguments.overrides);
    if (arguments.overrides == NULL)
        return APD_EXIT_INTERNAL;
    argp_parse(&parser, argc, argv, 0, NULL, &arguments);
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    status = coordinate(&arguments, ranks);
    free(arguments.overrides);
    MPI_Finalize();
    return status;
}
