/* What every subcommand of `advprop` shares: the table, option parsing that names the nearest word,
 * the default run directory, and the last words of a failed command. */
#ifndef APD_CLI_COMMAND_H
#define APD_CLI_COMMAND_H

#include "base/err.h"

#include <argp.h>
#include <stddef.h>

struct apd_command {
    const char *name;
    const char *summary;               /* of one line, for `advprop --help` */
    int (*run)(int argc, char **argv); /* argv[0]: "advprop NAME"; returns the exit status */
};

int apd_cmd_train(int argc, char **argv);
int apd_cmd_status(int argc, char **argv);
int apd_cmd_watch(int argc, char **argv);
int apd_cmd_events(int argc, char **argv);
int apd_cmd_checkpoint(int argc, char **argv);
int apd_cmd_drain(int argc, char **argv);
int apd_cmd_stop(int argc, char **argv);
int apd_cmd_eval(int argc, char **argv);
int apd_cmd_ckpt(int argc, char **argv);
int apd_cmd_data(int argc, char **argv);
int apd_cmd_doctor(int argc, char **argv);
int apd_cmd_config(int argc, char **argv);

/* argp_parse() after a look at the long options: an unknown one is an error that names the nearest.
 * Ends the process on --help and on wrong usage (64). */
void apd_cli_parse(const struct argp *argp, int argc, char **argv, void *input);

/* Runs argv[1] of `commands`, or says which is nearest (64). `name`: what was typed before it, as
 * in "advprop config". */
int apd_cli_dispatch(const char *name, const char *doc, const struct apd_command *commands,
                     size_t count, int argc, char **argv);

/* Prints "NAME: message" on stderr and returns the exit status of err->code. */
int apd_cli_fail(const char *name, const struct apd_err *err);

/* `given` or, if NULL, the current directory where it is a run directory. */
APD_MUST_USE enum apd_code apd_cli_run_dir(const char *given, const char **out,
                                           struct apd_err *err);

/* Parser of the commands whose only argument is [RUN_DIR]; input: const char **. */
error_t apd_cli_run_dir_parser(int key, char *arg, struct argp_state *state);

/* A number of a command line option; ends the process with the option's name if it is none (64). */
long apd_cli_number(const char *option, const char *text, long least, struct argp_state *state);
double apd_cli_real(const char *option, const char *text, double least, struct argp_state *state);

#endif
