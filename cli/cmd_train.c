/* advprop train RUN.yaml [key=value ...] --workers N --run DIR: checks everything that can be
 * checked before the first process starts, takes the run directory into use, and supervises
 * (supervise.c). */
#include "cli/command.h"
#include "cli/launch.h"
#include "cli/overrides.h"
#include "cli/supervise.h"
#include "proto/config.h"
#include "proto/run_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define LOCK_WAIT_S    10 /* a killed run's processes need a moment to end */
#define LEAST_LINGER_S 10 /* as do those of one that ended */

struct train_args {
    struct apd_overrides config; /* RUN.yaml key=value ... */
    const char *run_dir, *hostfile;
    long workers, max_restarts;
    int quiet, dry_run;
};

enum { KEY_MAX_RESTARTS = 256, KEY_HOSTFILE, KEY_DRY_RUN };

static const struct argp_option options[] = {
    {"workers", 'w', "N", 0, "worker processes, at most train.lanes; needed", 0},
    {"run", 'r', "DIR", 0, "run directory; made if missing, gone on with if not; needed", 0},
    {"max-restarts", KEY_MAX_RESTARTS, "N", 0, "starts after failures (20)", 0},
    {"hostfile", KEY_HOSTFILE, "FILE", 0, "hosts for mpirun; default: this one, or Slurm's", 0},
    {"quiet", 'q', NULL, 0, "no progress, only messages and the report", 0},
    {"dry-run", KEY_DRY_RUN, NULL, 0, "check, print the mpirun line, start nothing", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct train_args *args = state->input;

    switch (key) {
    case 'w':
        args->workers = apd_cli_number("workers", arg, 1, state);
        return 0;
    case 'r':
        args->run_dir = arg;
        return 0;
    case KEY_MAX_RESTARTS:
        args->max_restarts = apd_cli_number("max-restarts", arg, 0, state);
        return 0;
    case KEY_HOSTFILE:
        args->hostfile = arg;
        return 0;
    case 'q':
        args->quiet = 1;
        return 0;
    case KEY_DRY_RUN:
        args->dry_run = 1;
        return 0;
    case ARGP_KEY_ARG:
        return apd_overrides_take(&args->config, arg, state);
    case ARGP_KEY_END:
        if (args->config.path == NULL)
            argp_error(state, "which RUN.yaml?");
        if (args->workers == 0)
            argp_error(state, "how many workers? (--workers N)");
        if (args->run_dir == NULL || *args->run_dir == '\0')
            argp_error(state, "which run directory? (--run DIR)");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "RUN.yaml [key=value ...]",
    .doc =
        "Trains a model: starts the coordinator and its workers with mpirun, shows progress, "
        "starts "
        "them again from the newest checkpoint when one is lost, and reports at the end. The same "
        "command goes on with a run that was stopped.\v"
        "TERM, INT, HUP, USR1 and USR2 drain the run (75); a second TERM, INT or HUP stops it at "
        "once. Exit status: 0 done, 64 usage, 65 bad data, 69 unavailable, 70 internal error, 75 "
        "the "
        "same command goes on, 78 configuration.",
};

/* Paths in the stored configuration hold wherever the run goes on from. */
static enum apd_code make_absolute(char *path, size_t size, const char *key, struct apd_err *err)
{
    char *full;

    if (*path == '\0')
        return APD_OK;
    full = realpath(path, NULL);
    if (full == NULL) {
        apd_fail_errno(err, "%s: %s", key, path);
        err->code = APD_CONFIG;
        return err->code;
    }
    if (strlen(full) >= size) {
        free(full);
        return apd_fail(err, APD_CONFIG, "%s: an absolute path of more than %zu bytes", key,
                        size - 1);
    }
    memcpy(path, full, strlen(full) + 1);
    free(full);
    return APD_OK;
}

static void on_alarm(int number)
{
    (void)number; /* interrupts flock() */
}

/* Takes an flock, waiting for a run that is just ending. *out_fd is -1 on failure. */
static enum apd_code take_lock(const char *run_dir, const char *name, int *out_fd,
                               struct apd_err *err)
{
    struct sigaction action = {.sa_handler = on_alarm}, old;
    enum apd_code rc = APD_OK;
    char path[APD_RUN_PATH_MAX];
    int fd;

    APD_TRY(apd_run_dir_path(run_dir, name, path, err));
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return apd_fail_errno(err, "opening %s", path);
    (void)sigaction(SIGALRM, &action, &old);
    (void)alarm(LOCK_WAIT_S);
    if (flock(fd, LOCK_EX) != 0) {
        rc = errno == EINTR ? apd_fail(err, APD_IO,
                                       "run directory %s is in use by a run that still goes on "
                                       "(advprop status tells)",
                                       run_dir)
                            : apd_fail_errno(err, "locking %s", path);
        close(fd);
        fd = -1;
    }
    (void)alarm(0);
    (void)sigaction(SIGALRM, &old, NULL);
    *out_fd = fd;
    return rc;
}

/* Waits until no coordinator holds the run directory any more; the next one takes the lock itself.
 */
static enum apd_code wait_for_coordinator(const char *run_dir, struct apd_err *err)
{
    int fd;

    APD_TRY(take_lock(run_dir, APD_RUN_LOCK, &fd, err));
    close(fd);
    return APD_OK;
}

static int on_one_host(const struct train_args *args)
{
    const char *nodes = getenv("SLURM_JOB_NUM_NODES");

    return args->hostfile == NULL && (nodes == NULL || atoi(nodes) <= 1);
}

static enum apd_code run(const struct train_args *args, const char *name,
                         const struct apd_config *config, struct apd_command_line *line,
                         int *out_exit, struct apd_err *err)
{
    struct apd_supervision supervision = {
        .name = name,
        .line = line,
        .max_restarts = args->max_restarts,
        .linger_ms = (uint64_t)(fmax(config->cluster.silent_timeout_s, LEAST_LINGER_S) * 1e3),
        .quiet = args->quiet,
        .one_host = on_one_host(args),
    };
    char *run_dir = NULL;
    enum apd_code rc;
    int lock = -1;

    APD_GO(apd_run_dir_prepare(args->run_dir, config, err));
    run_dir = realpath(args->run_dir, NULL);
    if (run_dir == NULL) {
        rc = apd_fail_errno(err, "%s", args->run_dir);
        goto done;
    }
    APD_GO(take_lock(run_dir, APD_RUN_TRAIN_LOCK, &lock, err));
    APD_GO(wait_for_coordinator(run_dir, err));
    APD_GO(apd_launch_train(run_dir, args->workers, args->hostfile, line, err));
    APD_GO(apd_launch_environment(supervision.one_host, err));
    supervision.run_dir = run_dir;
    rc = apd_supervise(&supervision, out_exit, err);
done:
    if (lock >= 0)
        close(lock);
    free(run_dir);
    return rc;
}

static enum apd_code train(const struct train_args *args, const char *name, int *out_exit,
                           struct apd_err *err)
{
    struct apd_command_line line = {0};
    struct apd_config config;
    enum apd_code rc;

    APD_GO(apd_overrides_load(&args->config, &config, err));
    APD_GO(apd_config_check(&config, args->workers, err));
    APD_GO(make_absolute(config.data.path, sizeof config.data.path, "data.path", err));
    APD_GO(make_absolute(config.init_from, sizeof config.init_from, "init_from", err));
    if (args->dry_run) {
        APD_GO(apd_launch_train(args->run_dir, args->workers, args->hostfile, &line, err));
        apd_launch_print(&line, on_one_host(args), stdout);
    } else {
        rc = run(args, name, &config, &line, out_exit, err);
    }
done:
    apd_command_line_fini(&line);
    return rc;
}

int apd_cmd_train(int argc, char **argv)
{
    struct train_args args = {.max_restarts = 20};
    struct apd_err err = {0};
    int status = APD_EXIT_DONE;

    apd_cli_parse(&argp, argc, argv, &args);
    if (train(&args, argv[0], &status, &err) != APD_OK)
        return apd_cli_fail(argv[0], &err);
    return status;
}
