/* advprop ckpt: becomes `advprop-worker --ckpt ...`, which owns the reader of checkpoints. */
#include "cli/command.h"
#include "cli/launch.h"
#include "cli/programs.h"

struct ckpt_args {
    const char *path[2];
    int paths, wanted; /* files or run directories */
    int writes;        /* needs -o */
    const char *output, *arch, *tolerance;
    int json, tensors, full, ema;
};

enum { KEY_TENSORS = 256, KEY_PLAIN, KEY_FULL, KEY_EMA, KEY_ARCH, KEY_TOLERANCE };

static void check_args(const struct ckpt_args *args, struct argp_state *state)
{
    if (args->paths < args->wanted)
        argp_error(state, args->wanted == 2 ? "which two files or run directories?"
                                            : "which file or run directory?");
    if (args->writes && args->output == NULL)
        argp_error(state, "-o FILE is missing");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct ckpt_args *args = state->input;

    switch (key) {
    case 'j':
        args->json = 1;
        return 0;
    case KEY_TENSORS:
        args->tensors = 1;
        return 0;
    case KEY_PLAIN:
    case KEY_FULL:
        args->full = key == KEY_FULL;
        return 0;
    case KEY_EMA:
        args->ema = 1;
        return 0;
    case 'o':
        args->output = arg;
        return 0;
    case KEY_ARCH:
        args->arch = arg;
        return 0;
    case KEY_TOLERANCE:
        (void)apd_cli_real("tolerance", arg, 0, state);
        args->tolerance = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (args->paths == args->wanted)
            argp_error(state, "%s is one too many", arg);
        args->path[args->paths++] = arg;
        return 0;
    case ARGP_KEY_END:
        check_args(args, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static enum apd_code add_value(struct apd_command_line *line, const char *option, const char *value,
                               struct apd_err *err)
{
    return value == NULL ? APD_OK : apd_command_line_add(line, err, "--%s=%s", option, value);
}

static enum apd_code add_flag(struct apd_command_line *line, const char *option, int set,
                              struct apd_err *err)
{
    return set ? apd_command_line_add(line, err, "--%s", option) : APD_OK;
}

static enum apd_code build(const char *command, const struct ckpt_args *args,
                           struct apd_command_line *line, struct apd_err *err)
{
    char program[APD_PROGRAM_MAX];

    APD_TRY(apd_program_find("advprop-worker", program, err));
    APD_TRY(apd_command_line_add(line, err, "%s", program));
    APD_TRY(apd_command_line_add(line, err, "--ckpt"));
    APD_TRY(apd_command_line_add(line, err, "%s", command));
    APD_TRY(add_flag(line, "json", args->json, err));
    APD_TRY(add_flag(line, "tensors", args->tensors, err));
    APD_TRY(add_flag(line, "full", args->full, err));
    APD_TRY(add_flag(line, "ema", args->ema, err));
    APD_TRY(add_value(line, "output", args->output, err));
    APD_TRY(add_value(line, "arch", args->arch, err));
    APD_TRY(add_value(line, "tolerance", args->tolerance, err));
    APD_TRY(apd_command_line_add(line, err, "--"));
    for (int i = 0; i < args->paths; i++)
        APD_TRY(apd_command_line_add(line, err, "%s", args->path[i]));
    return APD_OK;
}

static int run(const char *command, const struct argp *argp, struct ckpt_args args, int argc,
               char **argv)
{
    struct apd_command_line line = {0};
    struct apd_err err = {0};

    apd_cli_parse(argp, argc, argv, &args);
    if (build(command, &args, &line, &err) == APD_OK)
        (void)apd_launch_exec(&line, &err);
    apd_command_line_fini(&line);
    return apd_cli_fail(argv[0], &err);
}

static int ckpt_ls(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"tensors", KEY_TENSORS, NULL, 0, "of a file: also every tensor", 0},
        {"json", 'j', NULL, 0, "one JSON object a line", 0},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "FILE|RUN_DIR",
        .doc =
            "Shows what a checkpoint says of itself, or the checkpoints that a run has committed: "
            "* is the one that the run would go on from."};

    return run("ls", &argp, (struct ckpt_args){.wanted = 1}, argc, argv);
}

static int ckpt_verify(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"json", 'j', NULL, 0, "one JSON object a line", 0},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "FILE|RUN_DIR",
        .doc =
            "Checks a checkpoint: structure, hash of the weights, values that are not finite. Of a "
            "run: every committed file that has not been removed since, also size and SHA-256 of "
            "its record. Exit status 65, and every reason, if anything is wrong."};

    return run("verify", &argp, (struct ckpt_args){.wanted = 1}, argc, argv);
}

static int ckpt_diff(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"tolerance", KEY_TOLERANCE, "T", 0, "a tensor is equal if no value differs by more (0)",
         0},
        {"json", 'j', NULL, 0, "print JSON", 0},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "A B",
        .doc =
            "Names the tensors and settings of two checkpoints that differ, and by how much. A and "
            "B are files, or run directories for their newest sound checkpoints. Exit status 0 if "
            "tensors and settings are equal, 1 if not. Other metadata is shown, but does not "
            "count."};

    return run("diff", &argp, (struct ckpt_args){.wanted = 2}, argc, argv);
}

static int ckpt_export(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"output", 'o', "FILE", 0, "file to write", 0},
        {"plain", KEY_PLAIN, NULL, 0, "weights and main batch norm, as torchvision (default)", 0},
        {"full", KEY_FULL, NULL, 0, "also auxiliary batch norm, as the authors' model", 0},
        {"ema", KEY_EMA, NULL, 0, "the average of the weights instead of the weights", 0},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "FILE|RUN_DIR -o OUT.safetensors",
        .doc = "Writes a checkpoint, or a run's newest sound one, as a model for others, without "
               "momentum."};

    return run("export", &argp, (struct ckpt_args){.wanted = 1, .writes = 1}, argc, argv);
}

static int ckpt_import(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"output", 'o', "FILE", 0, "file to write", 0},
        {"arch", KEY_ARCH, "NAME", 0, "expect this network (the one that the tensors fit)", 0},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "SRC.safetensors -o OUT.safetensors",
        .doc = "Writes a model of torchvision, of timm or of the authors' code as a file for "
               "init_from. Every tensor that is missing, unknown or of another shape is named. "
               "deploy/pth2safetensors makes SRC of a .pth or .pth.tar file."};

    return run("import", &argp, (struct ckpt_args){.wanted = 1, .writes = 1}, argc, argv);
}

static const struct apd_command commands[] = {
    {"ls", "what a checkpoint says of itself; the checkpoints of a run", ckpt_ls},
    {"verify", "is a checkpoint what it was when it was written?", ckpt_verify},
    {"diff", "which tensors and settings differ, and by how much", ckpt_diff},
    {"export", "a checkpoint as a model for PyTorch", ckpt_export},
    {"import", "a model of PyTorch as a file for init_from", ckpt_import},
};

int apd_cmd_ckpt(int argc, char **argv)
{
    return apd_cli_dispatch(argv[0], "Looks at checkpoints, and carries models in and out.",
                            commands, sizeof commands / sizeof *commands, argc, argv);
}
