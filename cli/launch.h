/* Command lines and their environment: mpirun with the coordinator and its workers, with workers
 * only (evaluation), and how Open MPI has to be set for either. */
#ifndef APD_CLI_LAUNCH_H
#define APD_CLI_LAUNCH_H

#include "base/err.h"

#include <stddef.h>
#include <stdio.h>

#define APD_COMMAND_MAX 128

/* A NULL-terminated argument list; owns its texts. `= {0}` is a valid empty one. */
struct apd_command_line {
    char *argv[APD_COMMAND_MAX];
    size_t count;
};

void apd_command_line_fini(struct apd_command_line *line);

APD_MUST_USE enum apd_code apd_command_line_add(struct apd_command_line *line, struct apd_err *err,
                                                const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* mpirun -n 1 advpropd --run DIR : -x NAME ... -n N advprop-worker --run DIR, with the names of the
 * variables that workers on other hosts must have, too. hostfile may be NULL. */
APD_MUST_USE enum apd_code apd_launch_train(const char *run_dir, long workers, const char *hostfile,
                                            struct apd_command_line *out, struct apd_err *err);

/* mpirun -n N advprop-worker, to which the caller adds options. */
APD_MUST_USE enum apd_code apd_launch_workers(long workers, struct apd_command_line *out,
                                              struct apd_err *err);

/* Sets in this process' environment what Open MPI needs for jobs of ours, unless the user has set
 * it. one_host: all ranks run here, so shared memory is enough. */
APD_MUST_USE enum apd_code apd_launch_environment(int one_host, struct apd_err *err);

/* The settings and the line as they could be typed into a shell. */
void apd_launch_print(const struct apd_command_line *line, int one_host, FILE *out);

/* Replaces this process; returns only on failure. */
enum apd_code apd_launch_exec(const struct apd_command_line *line, struct apd_err *err);

#endif
