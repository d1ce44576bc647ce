/* advprop data index, verify, stat, pack, corrupt: each becomes `advprop-worker --data-...`,
 * which owns the readers. What is allowed and what it means is here. */
#include "cli/cmd_data_sets.h"
#include "cli/command.h"
#include "cli/launch.h"
#include "cli/programs.h"

#include <limits.h>
#include <string.h>

#define THREADS      "threads", 't', "N", 0, "threads (as many as there are cores)", 0
#define THREADS_MOST 1024

enum { KEY_SEED = 256, KEY_SPLIT, KEY_SIZE, KEY_RESIZE, KEY_CHANNELS, KEY_JPEG };

enum { SIZE_MOST = 4096 };

/* Options go to the worker as they are checked here. */
struct set_args {
    struct apd_command_line line;
    int positions; /* wanted */
    const char *position[2];
    int count;
};

static void add(struct set_args *args, struct argp_state *state, const char *option,
                const char *value)
{
    struct apd_err err;

    if (apd_command_line_add(&args->line, &err, "%s%s", option, value) != APD_OK)
        argp_error(state, "%s", err.msg);
}

static void take_position(struct set_args *args, char *arg, struct argp_state *state)
{
    if (args->count == args->positions)
        argp_error(state, "one argument too many: %s", arg);
    args->position[args->count++] = arg;
}

static void take_number(struct set_args *args, const char *name, const char *arg, long least,
                        long most, const char *option, struct argp_state *state)
{
    if (apd_cli_number(name, arg, least, state) > most)
        argp_error(state, "--%s: at most %ld", name, most);
    add(args, state, option, arg);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct set_args *args = state->input;

    switch (key) {
    case 'o':
        add(args, state, "--out=", arg);
        return 0;
    case 't':
        take_number(args, "threads", arg, 1, THREADS_MOST, "--threads=", state);
        return 0;
    case 'f':
        if (strcmp(arg, "folder") != 0 && strcmp(arg, "tar") != 0)
            argp_error(state, "--format: expected folder or tar, found \"%s\"", arg);
        add(args, state, "--format=", arg);
        return 0;
    case 'p':
        add(args, state, "--prefix=", arg);
        return 0;
    case 'n':
        take_number(args, "shard-samples", arg, 1, 1 << 24, "--shard-samples=", state);
        return 0;
    case 'j':
        add(args, state, "--json", "");
        return 0;
    case 'c':
        add(args, state, "--corruption=", arg);
        return 0;
    case 's':
        add(args, state, "--severity=", arg);
        return 0;
    case KEY_SEED:
        take_number(args, "seed", arg, 0, LONG_MAX, "--seed=", state);
        return 0;
    case KEY_SPLIT:
        if (strcmp(arg, "train") != 0 && strcmp(arg, "test") != 0)
            argp_error(state, "--split: expected train or test, found \"%s\"", arg);
        add(args, state, "--split=", arg);
        return 0;
    case KEY_SIZE:
        take_number(args, "size", arg, 1, SIZE_MOST, "--size=", state);
        return 0;
    case KEY_RESIZE:
        take_number(args, "resize", arg, 1, 2 * SIZE_MOST, "--resize=", state);
        return 0;
    case KEY_CHANNELS:
        if (strcmp(arg, "1") != 0 && strcmp(arg, "3") != 0)
            argp_error(state, "--channels: expected 1 or 3, found \"%s\"", arg);
        add(args, state, "--channels=", arg);
        return 0;
    case KEY_JPEG:
        take_number(args, "jpeg", arg, 1, 100, "--jpeg=", state);
        return 0;
    case 'l':
        take_number(args, "limit", arg, 1, LONG_MAX, "--limit=", state);
        return 0;
    case ARGP_KEY_ARG:
        take_position(args, arg, state);
        return 0;
    case ARGP_KEY_END:
        if (args->count < args->positions)
            argp_error(state, "an argument is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Becomes the worker's tool. Returns only on failure. */
static int run(const struct argp *argp, const char *tool, int positions, int argc, char **argv)
{
    struct set_args args = {.positions = positions};
    char path[APD_PROGRAM_MAX];
    struct apd_err err = {0};
    enum apd_code rc;

    rc = apd_program_find("advprop-worker", path, &err);
    if (rc == APD_OK)
        rc = apd_command_line_add(&args.line, &err, "%s", path);
    if (rc == APD_OK)
        rc = apd_command_line_add(&args.line, &err, "%s", tool);
    if (rc == APD_OK) {
        apd_cli_parse(argp, argc, argv, &args);
        rc = apd_command_line_add(&args.line, &err, "--");
    }
    for (int i = 0; i < args.count && rc == APD_OK; i++)
        rc = apd_command_line_add(&args.line, &err, "%s", args.position[i]);
    if (rc == APD_OK)
        (void)apd_launch_exec(&args.line, &err);
    apd_command_line_fini(&args.line);
    return apd_cli_fail(argv[0], &err);
}

#define SRC_DOC                                                                                    \
    "SRC is a folder of images (one folder a class) or tar shards in the format of WebDataset: a " \
    "folder of them, a file, a glob, or ranges as train-{0000..1023}.tar, in quotes. "

int apd_cmd_data_index(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"out", 'o', "FILE", 0, "where the manifest goes (beside the data)", 0},
        {"format", 'f', "folder|tar", 0, "what SRC is (as it looks)", 0},
        {THREADS},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "SRC",
        .doc = "Writes the manifest of a data set: labels, sizes, places and CRCs of all images. "
               "\v" SRC_DOC "The manifest is SRC/.advprop-index for a folder, "
               "train.advprop-index for train-{...}.tar. Interrupted, the same command goes on; "
               "what has not changed (size and time) is not read again.",
    };

    return run(&argp, "--data-index", 1, argc, argv);
}

int apd_cmd_data_verify(int argc, char **argv)
{
    static const struct argp_option options[] = {{THREADS}, {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "SRC|MANIFEST",
        .doc = "Reads all of a data set and names every difference to its manifest; 65 if there "
               "is one.",
    };

    return run(&argp, "--data-verify", 1, argc, argv);
}

int apd_cmd_data_stat(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"json", 'j', NULL, 0, "print JSON", 0},
        {THREADS},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "SRC|MANIFEST",
        .doc = "Shows what is in an indexed data set: samples of each class, sizes, widths, "
               "heights, formats, colours, equal images.",
    };

    return run(&argp, "--data-stat", 1, argc, argv);
}

int apd_cmd_data_pack(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"shard-samples", 'n', "N", 0, "images a shard (1024)", 0},
        {"prefix", 'p', "NAME", 0,
         "shards are NAME-000000.tar ... (the last name of SRC; IDX: "
         "train and test)",
         0},
        {THREADS},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "SRC DST",
        .doc = "Makes tar shards in the format of WebDataset, in DST, of a folder of images or an "
               "IDX data set. The same images give the same bytes. Interrupted, the same command "
               "goes on.",
    };

    return run(&argp, "--data-pack", 2, argc, argv);
}

int apd_cmd_data_corrupt(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"corruption", 'c', "NAME[,NAME...]|15|all", 0,
         "which: by name, the 15 of the benchmark, or with the four extra ones (15)", 0},
        {"severity", 's', "1-5[,...]", 0, "which severities (1-5)", 0},
        {"seed", KEY_SEED, "N", 0, "of all chance (0)", 0},
        {"split", KEY_SPLIT, "train|test", 0, "which split of an IDX data set (test)", 0},
        {"size", KEY_SIZE, "PX", 0, "side of the square that image files become (224)", 0},
        {"resize", KEY_RESIZE, "PX", 0,
         "their shorter side, before the square in the middle is cut out (SIZE * 256 / 224)", 0},
        {"channels", KEY_CHANNELS, "1|3", 0, "image files as grey or as colour (3)", 0},
        {"jpeg", KEY_JPEG, "QUALITY", 0,
         "write JPEG files, as ImageNet-C's are with 85 (lossless PNG)", 0},
        {"limit", 'l', "N", 0, "only the first N images (all)", 0},
        {THREADS},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "SRC DST",
        .doc = "Writes images under the corruptions of Hendrycks and Dietterich, as "
               "DST/CORRUPTION/SEVERITY/CLASS/SAMPLE.png. The same seed gives the same images. "
               "What is there is kept; interrupted, the same command goes on."
               "\v" SRC_DOC "Or a manifest, or an IDX data set, whose images are taken as they "
               "are. Other images become squares first, as for ImageNet-C. Those that cannot be "
               "used are named and left out.",
    };

    return run(&argp, "--data-corrupt", 2, argc, argv);
}
