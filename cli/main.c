/* advprop: the command people type. One file per subcommand (cmd_*.c); this is the table. */
#include "cli/command.h"

#include <stdio.h>
#include <string.h>

static const struct apd_command commands[] = {
    {"train", "train a model, or go on with a run", apd_cmd_train},
    {"status", "show a run: progress, workers, receipts, checkpoint", apd_cmd_status},
    {"watch", "follow a run", apd_cmd_watch},
    {"events", "show what happened in a run", apd_cmd_events},
    {"checkpoint", "write a checkpoint now", apd_cmd_checkpoint},
    {"drain", "stop a run in order: finish the step, save, end", apd_cmd_drain},
    {"stop", "stop a run at once, without saving", apd_cmd_stop},
    {"eval", "evaluate a checkpoint, also under attack", apd_cmd_eval},
    {"ckpt", "look at checkpoints, carry models in and out", apd_cmd_ckpt},
    {"data", "index, check and pack data sets; show what a run trains on", apd_cmd_data},
    {"doctor", "what this host has for training, and what is wrong with it", apd_cmd_doctor},
    {"config", "check, show and explain run.yaml", apd_cmd_config},
};

int main(int argc, char **argv)
{
    argp_err_exit_status = APD_EXIT_USAGE;
    argp_program_version = "advprop " APD_VERSION;
    if (argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
        puts(argp_program_version);
        return APD_EXIT_DONE;
    }
    return apd_cli_dispatch("advprop", "Trains ResNets with Fast AdvProp on a cluster.", commands,
                            sizeof commands / sizeof *commands, argc, argv);
}
