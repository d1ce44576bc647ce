#include "worker/tool_data.h"

#include "worker/data/manifest.h"
#include "worker/index/parallel.h"

#include <argp.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS_MAX = 1024 };

enum {
    KEY_FIRST_TOOL = 256,
    KEY_OUT = 300,
    KEY_FORMAT,
    KEY_THREADS,
    KEY_PREFIX,
    KEY_SHARD_SAMPLES,
    KEY_JSON,
    KEY_CORRUPTION,
    KEY_SEVERITY,
    KEY_SEED,
    KEY_SPLIT,
    KEY_LIMIT,
    KEY_SIZE,
    KEY_RESIZE,
    KEY_CHANNELS,
    KEY_JPEG,
};

static const struct tool {
    const char *name;
    enum apd_code (*run)(struct apd_data_options *options, struct apd_err *err);
    const char *verb; /* of its progress */
    int second;       /* takes a second argument */
} tools[] = {
    {"data-index", apd_tool_data_index, "indexing", 0},
    {"data-verify", apd_tool_data_verify, "verifying", 0},
    {"data-stat", apd_tool_data_stat, "looking at", 0},
    {"data-pack", apd_tool_data_pack, "packing", 1},
    {"data-cat", apd_tool_data_cat, "reading", 1},
    {"data-corrupt", apd_tool_data_corrupt, "corrupting", 1},
};

enum { TOOLS = sizeof tools / sizeof *tools };

static const struct argp_option options_table[] = {
    {"data-index", KEY_FIRST_TOOL, NULL, 0, "SRC: write its manifest", 0},
    {"data-verify", KEY_FIRST_TOOL + 1, NULL, 0, "SRC: compare it with its manifest", 0},
    {"data-stat", KEY_FIRST_TOOL + 2, NULL, 0, "SRC: show what is in it", 0},
    {"data-pack", KEY_FIRST_TOOL + 3, NULL, 0, "SRC DST: make tar shards of it", 0},
    {"data-cat", KEY_FIRST_TOOL + 4, NULL, 0, "SRC N: write one of its images", 0},
    {"data-corrupt", KEY_FIRST_TOOL + 5, NULL, 0, "SRC DST: write its images under corruptions", 0},
    {"out", KEY_OUT, "FILE", 0, "Where to write", 1},
    {"format", KEY_FORMAT, "folder|tar", 0, "What SRC is", 1},
    {"threads", KEY_THREADS, "N", 0, "Threads (default: cores)", 1},
    {"prefix", KEY_PREFIX, "NAME", 0, "First part of the shards' names", 1},
    {"shard-samples", KEY_SHARD_SAMPLES, "N", 0, "Images a shard", 1},
    {"json", KEY_JSON, NULL, 0, "Print JSON", 1},
    {"corruption", KEY_CORRUPTION, "NAMES|15|all", 0, "Which corruptions (15)", 1},
    {"severity", KEY_SEVERITY, "1-5", 0, "Which severities (1-5)", 1},
    {"seed", KEY_SEED, "N", 0, "Of all chance (0)", 1},
    {"split", KEY_SPLIT, "train|test", 0, "Which split (test)", 1},
    {"limit", KEY_LIMIT, "N", 0, "Only the first N images", 1},
    {"size", KEY_SIZE, "PX", 0, "Side of the square that image files become (224)", 1},
    {"resize", KEY_RESIZE, "PX", 0, "Their shorter side before that (256 / 224 of it)", 1},
    {"channels", KEY_CHANNELS, "1|3", 0, "Image files as grey or colour (3)", 1},
    {"jpeg", KEY_JPEG, "QUALITY", 0, "Write JPEG files (PNG)", 1},
    {0},
};

struct arguments {
    const struct tool *tool;
    struct apd_data_options *options;
};

static uint64_t parse_number(struct argp_state *state, const char *name, const char *text,
                             uint64_t least, uint64_t most)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || value < least || value > most)
        argp_error(state,
                   "--%s: expected a whole number from %" PRIu64 " to %" PRIu64 ", found \"%s\"",
                   name, least, most, text);
    return value;
}

static error_t parse_argument(char *arg, struct argp_state *state,
                              const struct arguments *arguments)
{
    struct apd_data_options *options = arguments->options;

    if (options->src == NULL)
        options->src = arg;
    else if (options->second == NULL && arguments->tool != NULL && arguments->tool->second)
        options->second = arg;
    else
        argp_error(state, "one argument too many: \"%s\"", arg);
    return 0;
}

static error_t parse_corrupt_option(int key, char *arg, struct argp_state *state,
                                    struct apd_data_options *options)
{
    switch (key) {
    case KEY_CORRUPTION:
        options->corruption = arg;
        return 0;
    case KEY_SEVERITY:
        options->severity = arg;
        return 0;
    case KEY_SEED:
        options->seed = parse_number(state, "seed", arg, 0, INT64_MAX);
        return 0;
    case KEY_SPLIT:
        if (strcmp(arg, "train") != 0 && strcmp(arg, "test") != 0)
            argp_error(state, "--split: expected train or test, found \"%s\"", arg);
        options->split = strcmp(arg, "train") == 0 ? APD_CORRUPT_TRAIN : APD_CORRUPT_TEST;
        return 0;
    case KEY_LIMIT:
        options->limit = parse_number(state, "limit", arg, 1, INT64_MAX);
        return 0;
    case KEY_SIZE:
        options->size_px = (int)parse_number(state, "size", arg, 1, APD_CORRUPT_SIZE_MAX);
        return 0;
    case KEY_RESIZE:
        options->resize_px = (int)parse_number(state, "resize", arg, 1, 2 * APD_CORRUPT_SIZE_MAX);
        return 0;
    case KEY_CHANNELS:
        if (strcmp(arg, "1") != 0 && strcmp(arg, "3") != 0)
            argp_error(state, "--channels: expected 1 or 3, found \"%s\"", arg);
        options->channels = arg[0] - '0';
        return 0;
    case KEY_JPEG:
        options->jpeg_quality = (int)parse_number(state, "jpeg", arg, 1, 100);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *arguments = state->input;
    struct apd_data_options *options = arguments->options;

    if (key >= KEY_FIRST_TOOL && key < KEY_FIRST_TOOL + TOOLS) {
        arguments->tool = &tools[key - KEY_FIRST_TOOL];
        return 0;
    }
    switch (key) {
    case KEY_OUT:
        options->out = arg;
        return 0;
    case KEY_FORMAT:
        if (strcmp(arg, "folder") != 0 && strcmp(arg, "tar") != 0)
            argp_error(state, "--format: expected folder or tar, found \"%s\"", arg);
        options->kind = strcmp(arg, "tar") == 0 ? APD_MANIFEST_TAR : APD_MANIFEST_FOLDER;
        return 0;
    case KEY_THREADS:
        options->threads = (unsigned)parse_number(state, "threads", arg, 1, THREADS_MAX);
        return 0;
    case KEY_PREFIX:
        options->prefix = arg;
        return 0;
    case KEY_SHARD_SAMPLES:
        options->shard_samples = (uint32_t)parse_number(state, "shard-samples", arg, 1, 1 << 24);
        return 0;
    case KEY_JSON:
        options->json = 1;
        return 0;
    case ARGP_KEY_ARG:
        return parse_argument(arg, state, arguments);
    case ARGP_KEY_END:
        if (options->src == NULL || (arguments->tool->second && options->second == NULL))
            argp_error(state, "--%s: an argument is missing", arguments->tool->name);
        return 0;
    default:
        return parse_corrupt_option(key, arg, state, options);
    }
}

static const struct argp parser = {
    .options = options_table,
    .parser = parse_option,
    .args_doc = "SRC [DST|N]",
    .doc = "Tools for data sets, one of the first six options; `advprop data` has the words.",
};

static atomic_int stop;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stop, 1);
}

/* The first signal ends the work in order, the second one at once. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_RESETHAND};

    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

void apd_tool_data_tick(void *context)
{
    struct apd_data_options *options = context;

    apd_tool_progress_show(&options->progress, atomic_load(&options->reading.samples),
                           atomic_load(&options->reading.bytes), options->total_bytes);
}

void apd_tool_data_say(void *context, const char *line)
{
    struct apd_data_options *options = context;

    apd_tool_progress_say(&options->progress, line);
}

int apd_tool_data_asked(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < TOOLS; i++)
        if (strncmp(argv[1], "--", 2) == 0 && strcmp(argv[1] + 2, tools[i].name) == 0)
            return 1;
    return 0;
}

int apd_tool_data_main(int argc, char **argv)
{
    struct apd_data_options options = {.threads = apd_parallel_cores(),
                                       .shard_samples = APD_SHARD_SAMPLES,
                                       .corruption = "15",
                                       .severity = "1-5"};
    struct arguments arguments = {.options = &options};
    struct apd_err err = {0};
    enum apd_code rc;

    argp_parse(&parser, argc, argv, 0, NULL, &arguments);
    options.reading.stop = &stop;
    catch_signals();
    apd_tool_progress_init(&options.progress, arguments.tool->verb);
    rc = arguments.tool->run(&options, &err);
    (void)apd_tool_progress_end(&options.progress);
    if (rc == APD_OK && (fflush(stdout) != 0 || ferror(stdout)))
        rc = apd_fail_errno(&err, "writing to standard output");
    if (rc != APD_OK)
        fprintf(stderr, "advprop data %s: %s\n", arguments.tool->name + strlen("data-"), err.msg);
    return apd_exit_status(rc);
}
