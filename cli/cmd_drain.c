/* advprop drain: finish the step, save, end with 75. */
#include "cli/command.h"
#include "cli/control.h"

#include <stdio.h>

static const struct argp argp = {
    .parser = apd_cli_run_dir_parser,
    .args_doc = "[RUN_DIR]",
    .doc = "Asks a run to stop in order: the step in flight is finished, a checkpoint is written, "
           "the run ends with 75 and the same train command goes on with it.",
};

int apd_cmd_drain(int argc, char **argv)
{
    const char *run_dir = NULL;
    struct apd_err err = {0};

    apd_cli_parse(&argp, argc, argv, &run_dir);
    if (apd_cli_run_dir(run_dir, &run_dir, &err) != APD_OK ||
        apd_control_drain(run_dir, &err) != APD_OK)
        return apd_cli_fail(argv[0], &err);
    printf("%s: draining\n", run_dir);
    return APD_EXIT_DONE;
}
