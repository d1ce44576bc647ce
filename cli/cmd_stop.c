/* advprop stop: at once, without saving. */
#include "cli/command.h"
#include "cli/control.h"

#include <stdio.h>

static const struct argp argp = {
    .parser = apd_cli_run_dir_parser,
    .args_doc = "[RUN_DIR]",
    .doc = "Stops a run at once. Nothing is saved; the run can go on from its last checkpoint.",
};

int apd_cmd_stop(int argc, char **argv)
{
    const char *run_dir = NULL;
    struct apd_err err = {0};

    apd_cli_parse(&argp, argc, argv, &run_dir);
    if (apd_cli_run_dir(run_dir, &run_dir, &err) != APD_OK ||
        apd_control_stop(run_dir, &err) != APD_OK)
        return apd_cli_fail(argv[0], &err);
    printf("%s: stopping\n", run_dir);
    return APD_EXIT_DONE;
}
