/* advprop eval: becomes `advprop-worker --eval ...`, under mpirun when there is more than one
 * worker. */
#include "cli/command.h"
#include "cli/launch.h"
#include "cli/programs.h"

#include <string.h>

struct eval_args {
    const char *run_dir, *checkpoint, *config, *bn, *logits;
    const char *data, *suite, *predictions, *csv, *chart;
    long workers, steps, restarts, images;
    const char *eps, *step; /* checked numbers; NULL: the configuration's */
    int attack, per_class, json;
    int tuned; /* --steps, --eps, --step or --restarts was given */
};

enum {
    KEY_CHECKPOINT = 256,
    KEY_CONFIG,
    KEY_BN,
    KEY_ATTACK,
    KEY_STEPS,
    KEY_EPS,
    KEY_STEP,
    KEY_RESTARTS,
    KEY_IMAGES,
    KEY_PER_CLASS,
    KEY_LOGITS,
    KEY_DATA,
    KEY_SUITE,
    KEY_PREDICTIONS,
    KEY_CSV,
    KEY_CHART
};

static const struct argp_option options[] = {
    {"checkpoint", KEY_CHECKPOINT, "FILE", 0, "this checkpoint instead of a run's newest one", 0},
    {"config", KEY_CONFIG, "RUN.yaml", 0, "network and data for --checkpoint", 0},
    {"workers", 'w', "N", 0, "worker processes (1)", 0},
    {"bn", KEY_BN, "main|aux", 0, "only through this batch norm (both)", 0},
    {"attack", KEY_ATTACK, "none|pgd", 0, "attack the images (none)", 0},
    {"steps", KEY_STEPS, "K", 0, "steps of pgd (10)", 0},
    {"eps", KEY_EPS, "E", 0, "largest change of a pixel by pgd, in 1/255 (eval.attack_eps)", 0},
    {"step", KEY_STEP, "S", 0, "length of one step of pgd, in 1/255 (eval.attack_step)", 0},
    {"restarts", KEY_RESTARTS, "R", 0,
     "attacks that an image has to survive, each from another random start (1)", 0},
    {"images", KEY_IMAGES, "N", 0, "only the first N images of the test set", 0},
    {"per-class", KEY_PER_CLASS, NULL, 0, "also the accuracy of each class", 0},
    {"logits", KEY_LOGITS, "FILE", 0, "also write the logits (safetensors)", 0},
    {"data", KEY_DATA, "SRC", 0,
     "these images instead of the test set: a folder, shards or a manifest; of a suite its folder",
     0},
    {"suite", KEY_SUITE, "NAME", 0, "imagenet-c, imagenet-r, imagenet-a or stylized, in --data", 0},
    {"predictions", KEY_PREDICTIONS, "FILE", 0, "also write a line for every image (CSV)", 0},
    {"csv", KEY_CSV, "FILE", 0, "also write a line for every part (CSV)", 0},
    {"chart", KEY_CHART, "FILE", 0, "imagenet-c: also draw the errors (SVG)", 0},
    {"json", 'j', NULL, 0, "print the result as JSON", 0},
    {0},
};

static void parse_choice(int key, const char *arg, struct eval_args *args, struct argp_state *state)
{
    if (key == KEY_BN && strcmp(arg, "main") != 0 && strcmp(arg, "aux") != 0)
        argp_error(state, "--bn: expected main or aux, found \"%s\"", arg);
    if (key == KEY_BN)
        args->bn = arg;
    if (key == KEY_ATTACK && strcmp(arg, "none") != 0 && strcmp(arg, "pgd") != 0)
        argp_error(state, "--attack: expected none or pgd, found \"%s\"", arg);
    if (key == KEY_ATTACK)
        args->attack = strcmp(arg, "pgd") == 0;
}

static void parse_suite(const char *arg, struct eval_args *args, struct argp_state *state)
{
    static const char *const suites[] = {"imagenet-c", "imagenet-r", "imagenet-a", "stylized"};

    for (size_t i = 0; i < sizeof suites / sizeof *suites; i++)
        if (strcmp(arg, suites[i]) == 0) {
            args->suite = arg;
            return;
        }
    argp_error(state,
               "--suite: expected imagenet-c, imagenet-r, imagenet-a or stylized, found \"%s\"",
               arg);
}

static void check_args(const struct eval_args *args, struct argp_state *state)
{
    if ((args->run_dir != NULL) == (args->checkpoint != NULL))
        argp_error(state, "either RUN_DIR or --checkpoint FILE, please");
    if ((args->checkpoint != NULL) != (args->config != NULL))
        argp_error(state, "--checkpoint FILE and --config RUN.yaml go together");
    if (args->tuned && !args->attack)
        argp_error(state, "--steps, --eps, --step and --restarts need --attack pgd");
    if (args->suite != NULL && args->data == NULL)
        argp_error(state, "--suite needs --data, the suite's folder");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct eval_args *args = state->input;

    switch (key) {
    case KEY_CHECKPOINT:
        args->checkpoint = arg;
        return 0;
    case KEY_CONFIG:
        args->config = arg;
        return 0;
    case 'w':
        args->workers = apd_cli_number("workers", arg, 1, state);
        return 0;
    case KEY_BN:
    case KEY_ATTACK:
        parse_choice(key, arg, args, state);
        return 0;
    case KEY_STEPS:
        args->steps = apd_cli_number("steps", arg, 1, state);
        args->tuned = 1;
        return 0;
    case KEY_EPS:
        (void)apd_cli_real("eps", arg, 0, state);
        args->eps = arg;
        args->tuned = 1;
        return 0;
    case KEY_STEP:
        (void)apd_cli_real("step", arg, 0, state);
        args->step = arg;
        args->tuned = 1;
        return 0;
    case KEY_RESTARTS:
        args->restarts = apd_cli_number("restarts", arg, 1, state);
        args->tuned = 1;
        return 0;
    case KEY_PER_CLASS:
        args->per_class = 1;
        return 0;
    case KEY_IMAGES:
        args->images = apd_cli_number("images", arg, 1, state);
        return 0;
    case KEY_LOGITS:
        args->logits = arg;
        return 0;
    case KEY_DATA:
        args->data = arg;
        return 0;
    case KEY_SUITE:
        parse_suite(arg, args, state);
        return 0;
    case KEY_PREDICTIONS:
        args->predictions = arg;
        return 0;
    case KEY_CSV:
        args->csv = arg;
        return 0;
    case KEY_CHART:
        args->chart = arg;
        return 0;
    case 'j':
        args->json = 1;
        return 0;
    case ARGP_KEY_ARG:
        state->input = &args->run_dir;
        apd_cli_run_dir_parser(key, arg, state);
        state->input = args;
        return 0;
    case ARGP_KEY_END:
        check_args(args, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "(RUN_DIR | --checkpoint FILE --config RUN.yaml)",
    .doc = "Evaluates a checkpoint on the test set: top-1, top-5 and loss, through the main or the "
           "auxiliary batch norm, clean or under attack.",
};

static enum apd_code add_pair(struct apd_command_line *line, const char *option, const char *value,
                              struct apd_err *err)
{
    if (value == NULL)
        return APD_OK;
    APD_TRY(apd_command_line_add(line, err, "%s", option));
    return apd_command_line_add(line, err, "%s", value);
}

static enum apd_code add_program(const struct eval_args *args, struct apd_command_line *line,
                                 struct apd_err *err)
{
    char path[APD_PROGRAM_MAX];

    if (args->workers > 1)
        return apd_launch_workers(args->workers, line, err);
    APD_TRY(apd_program_find("advprop-worker", path, err));
    return apd_command_line_add(line, err, "%s", path);
}

static enum apd_code add_options(const struct eval_args *args, struct apd_command_line *line,
                                 struct apd_err *err)
{
    APD_TRY(apd_command_line_add(line, err, "--eval"));
    APD_TRY(add_pair(line, "--run", args->run_dir, err));
    APD_TRY(add_pair(line, "--checkpoint", args->checkpoint, err));
    APD_TRY(add_pair(line, "--config", args->config, err));
    APD_TRY(add_pair(line, "--bn", args->bn, err));
    if (args->attack) {
        APD_TRY(apd_command_line_add(line, err, "--attack-steps=%ld", args->steps));
        APD_TRY(add_pair(line, "--attack-eps", args->eps, err));
        APD_TRY(add_pair(line, "--attack-step", args->step, err));
        APD_TRY(apd_command_line_add(line, err, "--attack-restarts=%ld", args->restarts));
    }
    if (args->images > 0)
        APD_TRY(apd_command_line_add(line, err, "--images=%ld", args->images));
    if (args->per_class)
        APD_TRY(apd_command_line_add(line, err, "--per-class"));
    APD_TRY(add_pair(line, "--logits", args->logits, err));
    APD_TRY(add_pair(line, "--eval-data", args->data, err));
    APD_TRY(add_pair(line, "--suite", args->suite, err));
    APD_TRY(add_pair(line, "--predictions", args->predictions, err));
    APD_TRY(add_pair(line, "--csv", args->csv, err));
    APD_TRY(add_pair(line, "--chart", args->chart, err));
    if (args->json)
        APD_TRY(apd_command_line_add(line, err, "--json"));
    return APD_OK;
}

int apd_cmd_eval(int argc, char **argv)
{
    struct eval_args args = {.workers = 1, .steps = 10, .restarts = 1};
    struct apd_command_line line = {0};
    struct apd_err err = {0};

    apd_cli_parse(&argp, argc, argv, &args);
    if ((args.run_dir == NULL || apd_cli_run_dir(args.run_dir, &args.run_dir, &err) == APD_OK) &&
        add_program(&args, &line, &err) == APD_OK && add_options(&args, &line, &err) == APD_OK &&
        apd_launch_environment(1, &err) == APD_OK)
        (void)apd_launch_exec(&line, &err);
    apd_command_line_fini(&line);
    return apd_cli_fail(argv[0], &err);
}
