/* advprop-worker: ranks 1 .. W of a run, or a tool that needs no coordinator (--eval, --data-plan,
 * --data-view, --ckpt, --doctor). */
#include "base/err.h"
#include "base/log.h"
#include "proto/run_dir.h"
#include "worker/ckpt/ckpt.h"
#include "worker/comm_mpi.h"
#include "worker/job.h"
#include "worker/tool.h"
#include "worker/tool_data.h"
#include "worker/tool_doctor.h"
#include "worker/train.h"

#include <argp.h>
#include <fcntl.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef APD_VERSION
#define APD_VERSION "unknown"
#endif

const char *argp_program_version = "advprop-worker " APD_VERSION;

enum mode { MODE_TRAIN, MODE_EVAL, MODE_DATA_PLAN, MODE_DATA_VIEW };

enum { MAX_OVERRIDES = 128 };

struct arguments {
    enum mode mode;
    const char *run_dir, *config;
    const char *overrides[MAX_OVERRIDES];
    size_t override_count;
    uint32_t epoch;
    uint64_t steps;
    struct apd_eval_options eval;
    struct apd_view_options view; /* its epoch is `epoch` */
};

enum {
    KEY_RUN = 256,
    KEY_CONFIG,
    KEY_EVAL,
    KEY_CHECKPOINT,
    KEY_BN,
    KEY_ATTACK_STEPS,
    KEY_ATTACK_EPS,
    KEY_ATTACK_STEP,
    KEY_ATTACK_RESTARTS,
    KEY_IMAGES,
    KEY_PER_CLASS,
    KEY_LOGITS,
    KEY_JSON,
    KEY_EVAL_DATA,
    KEY_SUITE,
    KEY_PREDICTIONS,
    KEY_CSV,
    KEY_CHART,
    KEY_DATA_PLAN,
    KEY_EPOCH,
    KEY_STEPS,
    KEY_DATA_VIEW,
    KEY_TEST_VIEW,
    KEY_OUT,
};

static const struct argp_option options[] = {
    {"run", KEY_RUN, "DIR", 0, "Run directory", 0},
    {"config", KEY_CONFIG, "FILE", 0, "run.yaml (default: config.yaml of the run directory)", 0},
    {0, 0, NULL, 0, "Evaluation:", 1},
    {"eval", KEY_EVAL, NULL, 0, "Evaluate a checkpoint on the test set and leave", 1},
    {"checkpoint", KEY_CHECKPOINT, "FILE", 0, "Checkpoint (default: the run's newest good one)", 1},
    {"bn", KEY_BN, "main|aux", 0, "Only this BN (default: both)", 1},
    {"attack-steps", KEY_ATTACK_STEPS, "K", 0, "Attack the images by K steps of PGD", 1},
    {"attack-eps", KEY_ATTACK_EPS, "E", 0, "Size of the attack, 1/255 (default: eval.attack_eps)",
     1},
    {"attack-step", KEY_ATTACK_STEP, "E", 0, "Step, 1/255 (default: eval.attack_step)", 1},
    {"attack-restarts", KEY_ATTACK_RESTARTS, "R", 0, "Attack so many times (default 1)", 1},
    {"images", KEY_IMAGES, "N", 0, "Only the first N images", 1},
    {"per-class", KEY_PER_CLASS, NULL, 0, "Also the accuracy of each class", 1},
    {"logits", KEY_LOGITS, "FILE", 0, "Write the logits (safetensors, [images][classes])", 1},
    {"json", KEY_JSON, NULL, 0, "One JSON object a line", 1},
    {"eval-data", KEY_EVAL_DATA, "SRC", 0, "Images instead of the test set; of a suite its folder",
     1},
    {"suite", KEY_SUITE, "NAME", 0, "imagenet-c, imagenet-r, imagenet-a or stylized", 1},
    {"predictions", KEY_PREDICTIONS, "FILE", 0, "Write a line for every image (CSV)", 1},
    {"csv", KEY_CSV, "FILE", 0, "Write a line for every part (CSV)", 1},
    {"chart", KEY_CHART, "FILE", 0, "Draw the errors by corruption (SVG)", 1},
    {0, 0, NULL, 0, "Plan:", 2},
    {"data-plan", KEY_DATA_PLAN, NULL, 0, "Print which samples each lane trains on and leave", 2},
    {"epoch", KEY_EPOCH, "E", 0, "From the first step that begins in epoch E (default 0)", 2},
    {"steps", KEY_STEPS, "N", 0, "So many steps (default 1)", 2},
    {0, 0, NULL, 0, "One image:", 3},
    {"data-view", KEY_DATA_VIEW, "N", 0,
     "Write training sample N as the run sees it in epoch E (PNG) and leave", 3},
    {"test-view", KEY_TEST_VIEW, NULL, 0, "Test sample N, as it is evaluated", 3},
    {"out", KEY_OUT, "FILE", 0, "Where to write it (default: standard output)", 3},
    {0},
};

static uint64_t parse_count(struct argp_state *state, const char *name, const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0')
        argp_error(state, "--%s: expected a whole number, found \"%s\"", name, text);
    return value;
}

static double parse_length(struct argp_state *state, const char *name, const char *text)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value >= 0))
        argp_error(state, "--%s: expected a number of at least 0, found \"%s\"", name, text);
    return value;
}

/* The number of a restart has 24 bits in the counter of its random start. */
static int parse_restarts(struct argp_state *state, const char *text)
{
    uint64_t value = parse_count(state, "attack-restarts", text);

    if (value < 1 || value > 1 << 24)
        argp_error(state, "--attack-restarts: expected 1 to %d, found %s", 1 << 24, text);
    return (int)value;
}

static error_t parse_eval_option(int key, char *arg, struct argp_state *state,
                                 struct apd_eval_options *eval)
{
    switch (key) {
    case KEY_CHECKPOINT:
        eval->checkpoint = arg;
        break;
    case KEY_BN:
        if (strcmp(arg, "main") != 0 && strcmp(arg, "aux") != 0)
            argp_error(state, "--bn: expected main or aux, found \"%s\"", arg);
        eval->sets = strcmp(arg, "main") == 0 ? 1 << APD_BN_MAIN : 1 << APD_BN_AUX;
        break;
    case KEY_ATTACK_STEPS:
        eval->attack_steps = (int)parse_count(state, "attack-steps", arg);
        break;
    case KEY_ATTACK_EPS:
        eval->attack_eps = parse_length(state, "attack-eps", arg);
        break;
    case KEY_ATTACK_STEP:
        eval->attack_step = parse_length(state, "attack-step", arg);
        break;
    case KEY_ATTACK_RESTARTS:
        eval->attack_restarts = parse_restarts(state, arg);
        break;
    case KEY_PER_CLASS:
        eval->per_class = 1;
        break;
    case KEY_IMAGES:
        eval->images = parse_count(state, "images", arg);
        break;
    case KEY_LOGITS:
        eval->logits = arg;
        break;
    case KEY_JSON:
        eval->json = 1;
        break;
    case KEY_EVAL_DATA:
        eval->data = arg;
        break;
    case KEY_SUITE:
        eval->suite = apd_suite_named(arg);
        if (eval->suite == APD_SUITE_NONE)
            argp_error(state,
                       "--suite: expected imagenet-c, imagenet-r, imagenet-a or stylized, "
                       "found \"%s\"",
                       arg);
        break;
    case KEY_PREDICTIONS:
        eval->predictions = arg;
        break;
    case KEY_CSV:
        eval->csv = arg;
        break;
    case KEY_CHART:
        eval->chart = arg;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *arguments = state->input;

    switch (key) {
    case KEY_RUN:
        arguments->run_dir = arg;
        break;
    case KEY_CONFIG:
        arguments->config = arg;
        break;
    case KEY_EVAL:
        arguments->mode = MODE_EVAL;
        break;
    case KEY_DATA_PLAN:
        arguments->mode = MODE_DATA_PLAN;
        break;
    case KEY_EPOCH:
        arguments->epoch = (uint32_t)parse_count(state, "epoch", arg);
        break;
    case KEY_STEPS:
        arguments->steps = parse_count(state, "steps", arg);
        break;
    case KEY_DATA_VIEW:
        arguments->mode = MODE_DATA_VIEW;
        arguments->view.sample = parse_count(state, "data-view", arg);
        break;
    case KEY_TEST_VIEW:
        arguments->view.test = 1;
        break;
    case KEY_OUT:
        arguments->view.out = arg;
        break;
    case ARGP_KEY_ARG:
        if (strchr(arg, '=') == NULL || arguments->override_count == MAX_OVERRIDES)
            argp_error(state, "expected key=value, found \"%s\"", arg);
        arguments->overrides[arguments->override_count++] = arg;
        break;
    case ARGP_KEY_END:
        if (arguments->run_dir == NULL && arguments->config == NULL)
            argp_error(state, "--run DIR or --config FILE is missing");
        if (arguments->run_dir == NULL && arguments->mode == MODE_TRAIN)
            argp_error(state, "--run DIR is missing");
        if (arguments->run_dir == NULL && arguments->mode == MODE_EVAL &&
            arguments->eval.checkpoint == NULL)
            argp_error(state, "--run DIR or --checkpoint FILE is missing");
        break;
    default:
        return parse_eval_option(key, arg, state, &arguments->eval);
    }
    return 0;
}

static const struct argp parser = {
    options,
    parse_option,
    "[key=value ...]",
    "Worker of advpropd. Training is started by `advprop train`, or by hand:\n"
    "mpirun -n 1 advpropd --run DIR : -n W advprop-worker --run DIR\v"
    "advprop-worker --ckpt --help and --data-index --help explain what `advprop ckpt` and `advprop "
    "data`\n"
    "start.",
    NULL,
    NULL,
    NULL};

static enum apd_code load_config(const struct arguments *arguments, struct apd_config *out,
                                 struct apd_err *err)
{
    char path[APD_RUN_PATH_MAX];

    if (arguments->config != NULL)
        return apd_config_load(arguments->config, arguments->overrides, arguments->override_count,
                               out, err);
    APD_TRY(apd_run_dir_path(arguments->run_dir, APD_RUN_CONFIG, path, err));
    return apd_config_load(path, arguments->overrides, arguments->override_count, out, err);
}

static void on_signal(int number)
{
    (void)number;
    apd_train_signal();
}

static void catch_signals(void)
{
    const int numbers[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* The training log of this rank goes to <run>/logs/rank-N.log; the terminal belongs to `advprop`.
 */
static enum apd_code open_log(const char *run_dir, int rank, struct apd_err *err)
{
    char name[48], path[APD_RUN_PATH_MAX];
    int fd;

    (void)snprintf(name, sizeof name, APD_RUN_LOGS "/rank-%d.log", rank);
    APD_TRY(apd_run_dir_path(run_dir, name, path, err));
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0) {
        (void)apd_fail_errno(err, "opening %s", path);
        if (fd >= 0)
            close(fd);
        return APD_IO;
    }
    close(fd);
    return APD_OK;
}

static int fail(const struct apd_err *err)
{
    apd_log(APD_LOG_ERROR, err->msg, "code=\"%s\"", apd_code_name(err->code));
    return apd_exit_status(err->code);
}

/* ---------------------------------------------------------------- training */

/* Ranks 1 .. W meet the coordinator: the same calls in the same order as in daemon/main.c. */
static enum apd_code wire_up(struct apd_job *job, struct apd_wireup *wireup, int *out_rank,
                             struct apd_err *err)
{
    MPI_Comm host, workers;

    MPI_Comm_rank(MPI_COMM_WORLD, out_rank);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
    MPI_Comm_size(host, &job->workers_on_host);
    MPI_Comm_free(&host);
    MPI_Bcast(wireup, (int)sizeof *wireup, MPI_BYTE, 0, MPI_COMM_WORLD);
    MPI_Comm_split(MPI_COMM_WORLD, 1, *out_rank, &workers);
    if (wireup->magic != APD_WIREUP_MAGIC) {
        MPI_Comm_free(&workers);
        return apd_fail(err, APD_PROTO,
                        "rank 0 is no advpropd of this version: expected %08x, found %08x",
                        APD_WIREUP_MAGIC, wireup->magic);
    }
    /* The coordinator is on one host only; its rank takes no core to speak of there. */
    MPI_Comm_split_type(workers, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
    MPI_Comm_size(host, &job->workers_on_host);
    MPI_Comm_rank(host, &job->local_rank);
    MPI_Comm_free(&host);
    return apd_comm_mpi(workers, &job->comm, err);
}

static int run_training(const struct arguments *arguments, struct apd_job *job)
{
    struct apd_wireup wireup = {0};
    struct apd_err err = {0};
    int rank = 0, provided, status;
    enum apd_code rc;

    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    catch_signals();
    rc = wire_up(job, &wireup, &rank, &err);
    apd_log_init("worker", rank, APD_LOG_INFO);
    if (rc == APD_OK && wireup.failed) {
        /* The coordinator has said why on its own stderr. */
        status = wireup.status;
        goto done;
    }
    if (rc == APD_OK)
        rc = open_log(arguments->run_dir, rank, &err);
    if (rc == APD_OK)
        rc = load_config(arguments, &job->config, &err);
    if (rc == APD_OK) {
        apd_log_init("worker", rank, apd_log_level_parse(job->config.log.level));
        rc = apd_train(job, &wireup, rank, &err);
    }
    status = apd_exit_status(rc);
    if (rc != APD_OK && rc != APD_CANCELED) {
        /* The others may be waiting for us in a collective: leave without MPI_Finalize, which makes
         * mpirun end the job. */
        status = fail(&err);
        _exit(status);
    }
    if (rc == APD_CANCELED)
        apd_log(APD_LOG_INFO, err.msg, "%s", "");
done:
    apd_job_fini(job);
    if (job->comm != NULL)
        job->comm->ops->destroy(job->comm);
    MPI_Finalize();
    return status;
}

/* ---------------------------------------------------------------- tools */

/* As their users call them. */
static const char *const tool_names[] = {
    [MODE_EVAL] = "eval", [MODE_DATA_PLAN] = "data plan", [MODE_DATA_VIEW] = "data cat"};

/* Under mpirun with several ranks all are workers; alone no MPI is needed. */
static enum apd_code tool_comm(struct apd_job *job, int *out_mpi, struct apd_err *err)
{
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    MPI_Comm workers, host;
    int provided;

    *out_mpi = size != NULL && atoi(size) > 1;
    job->workers_on_host = 1;
    if (!*out_mpi)
        return apd_comm_self(&job->comm, err);
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_dup(MPI_COMM_WORLD, &workers);
    MPI_Comm_split_type(workers, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
    MPI_Comm_size(host, &job->workers_on_host);
    MPI_Comm_rank(host, &job->local_rank);
    MPI_Comm_free(&host);
    return apd_comm_mpi(workers, &job->comm, err);
}

static enum apd_code tool(struct arguments *arguments, struct apd_job *job, struct apd_err *err)
{
    APD_TRY(load_config(arguments, &job->config, err));
    if (arguments->mode == MODE_DATA_PLAN)
        return apd_tool_data_plan(job, arguments->epoch, arguments->steps, err);
    arguments->view.epoch = arguments->epoch;
    if (arguments->mode == MODE_DATA_VIEW)
        return apd_tool_data_view(job, &arguments->view, err);
    if (arguments->eval.attack_eps < 0)
        arguments->eval.attack_eps = job->config.eval.attack_eps;
    if (arguments->eval.attack_step < 0)
        arguments->eval.attack_step = job->config.eval.attack_step;
    return apd_tool_eval(job, &arguments->eval, err);
}

static int run_tool(struct arguments *arguments, struct apd_job *job)
{
    struct apd_err err = {0};
    int mpi = 0, status = APD_EXIT_DONE;
    enum apd_code rc = tool_comm(job, &mpi, &err);

    if (rc == APD_OK)
        rc = tool(arguments, job, &err);
    if (rc != APD_OK) {
        fprintf(stderr, "advprop %s: %s\n", tool_names[arguments->mode], err.msg);
        status = apd_exit_status(err.code);
        if (mpi)
            _exit(status); /* see run_training */
    }
    apd_job_fini(job);
    if (job->comm != NULL)
        job->comm->ops->destroy(job->comm);
    if (mpi)
        MPI_Finalize();
    return status;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {.steps = 1,
                                  .eval = {.sets = 1 << APD_BN_MAIN | 1 << APD_BN_AUX,
                                           .attack_eps = -1, /* the configuration's */
                                           .attack_step = -1,
                                           .attack_restarts = 1}};
    struct apd_job *job;
    int status;

    if (argc > 1 && strcmp(argv[1], "--ckpt") == 0)
        return apd_ckpt_main(argc - 1, argv + 1);
    argp_err_exit_status = APD_EXIT_USAGE;
    if (argc > 1 && strcmp(argv[1], "--doctor") == 0)
        return apd_tool_doctor_main(argc - 1, argv + 1);
    if (apd_tool_data_asked(argc, argv))
        return apd_tool_data_main(argc, argv);
    job = calloc(1, sizeof *job);
    argp_parse(&parser, argc, argv, 0, NULL, &arguments);
    apd_log_init("worker", -1, APD_LOG_INFO);
    if (job == NULL)
        return APD_EXIT_UNAVAILABLE;
    job->run_dir = arguments.run_dir;
    status =
        arguments.mode == MODE_TRAIN ? run_training(&arguments, job) : run_tool(&arguments, job);
    free(job);
    return status;
}
