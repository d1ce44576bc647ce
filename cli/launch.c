/* See launch.h. */
#include "cli/launch.h"
#include "cli/programs.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct setting {
    const char *name, *value;
    enum { ALWAYS, ONE_HOST, ROOT } when;
};

/* docs/cluster.md tells why and what was measured. */
static const struct setting settings[] = {
    {"OMPI_MCA_mpi_yield_when_idle", "1", ALWAYS}, /* there is one rank more than devices */
    {"OMPI_MCA_hwloc_base_binding_policy", "none", ALWAYS}, /* threads are the worker's business */
    {"OMPI_MCA_rmaps_base_oversubscribe", "1", ALWAYS},     /* the coordinator needs no core */
    {"OMPI_MCA_oob_tcp_keepalive_time", "5", ALWAYS},       /* find a lost host in seconds */
    {"OMPI_MCA_oob_tcp_keepalive_intvl", "2", ALWAYS},
    {"OMPI_MCA_oob_tcp_keepalive_probes", "3", ALWAYS},
    {"OMPI_MCA_pml", "ob1", ONE_HOST}, /* no search for network adapters */
    {"OMPI_MCA_btl", "vader,self", ONE_HOST},
    {"OMPI_ALLOW_RUN_AS_ROOT", "1", ROOT},
    {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", ROOT},
    {"GOMP_SPINCOUNT", "20000", ALWAYS}, /* spin for tens of microseconds, then leave the core */
    {"OMP_DYNAMIC", "false", ALWAYS},    /* the number of threads is part of the arithmetic */
};

static int applies(const struct setting *setting, int one_host)
{
    return setting->when == ALWAYS || (setting->when == ONE_HOST && one_host) ||
           (setting->when == ROOT && geteuid() == 0);
}

void apd_command_line_fini(struct apd_command_line *line)
{
    for (size_t i = 0; i < line->count; i++)
        free(line->argv[i]);
    *line = (struct apd_command_line){0};
}

enum apd_code apd_command_line_add(struct apd_command_line *line, struct apd_err *err,
                                   const char *format, ...)
{
    char *text = NULL;
    va_list args;
    int n;

    if (line->count + 1 >= APD_COMMAND_MAX)
        return apd_fail(err, APD_USAGE, "more than %d arguments for %s", APD_COMMAND_MAX - 2,
                        line->argv[0]);
    va_start(args, format);
    n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        return apd_fail(err, APD_NOMEM, "memory for a command line");
    line->argv[line->count++] = text;
    return APD_OK;
}

static int has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static enum apd_code add_variable(struct apd_command_line *line, const char *name,
                                  struct apd_err *err)
{
    APD_TRY(apd_command_line_add(line, err, "-x"));
    return apd_command_line_add(line, err, "%.*s", (int)strcspn(name, "="), name);
}

/* mpirun takes its own variables to other hosts, and those it is told of. */
static enum apd_code add_variables(struct apd_command_line *line, struct apd_err *err)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (!has_prefix(settings[i].name, "OMPI_"))
            APD_TRY(add_variable(line, settings[i].name, err));
    for (char **at = environ; *at != NULL; at++)
        if (has_prefix(*at, "NCCL_"))
            APD_TRY(add_variable(line, *at, err));
    return APD_OK;
}

static enum apd_code add_rank(struct apd_command_line *line, const char *program, long count,
                              const char *run_dir, struct apd_err *err)
{
    char path[APD_PROGRAM_MAX];

    APD_TRY(apd_program_find(program, path, err));
    APD_TRY(apd_command_line_add(line, err, "-n"));
    APD_TRY(apd_command_line_add(line, err, "%ld", count));
    APD_TRY(apd_command_line_add(line, err, "%s", path));
    if (run_dir == NULL)
        return APD_OK;
    APD_TRY(apd_command_line_add(line, err, "--run"));
    return apd_command_line_add(line, err, "%s", run_dir);
}

enum apd_code apd_launch_train(const char *run_dir, long workers, const char *hostfile,
                               struct apd_command_line *out, struct apd_err *err)
{
    APD_TRY(apd_command_line_add(out, err, "mpirun"));
    if (hostfile != NULL) {
        APD_TRY(apd_command_line_add(out, err, "--hostfile"));
        APD_TRY(apd_command_line_add(out, err, "%s", hostfile));
    }
    APD_TRY(add_rank(out, "advpropd", 1, run_dir, err));
    APD_TRY(apd_command_line_add(out, err, ":"));
    APD_TRY(add_variables(out, err));
    return add_rank(out, "advprop-worker", workers, run_dir, err);
}

enum apd_code apd_launch_workers(long workers, struct apd_command_line *out, struct apd_err *err)
{
    APD_TRY(apd_command_line_add(out, err, "mpirun"));
    return add_rank(out, "advprop-worker", workers, NULL, err);
}

enum apd_code apd_launch_environment(int one_host, struct apd_err *err)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (applies(&settings[i], one_host) && setenv(settings[i].name, settings[i].value, 0) != 0)
            return apd_fail_errno(err, "setting %s", settings[i].name);
    return APD_OK;
}

static void print_quoted(const char *text, FILE *out)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=./:,@%";

    if (*text != '\0' && strspn(text, plain) == strlen(text)) {
        fputs(text, out);
        return;
    }
    fputc('\'', out);
    for (; *text != '\0'; text++)
        fputs(*text == '\'' ? "'\\''" : (const char[]){*text, '\0'}, out);
    fputc('\'', out);
}

void apd_launch_print(const struct apd_command_line *line, int one_host, FILE *out)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const char *value = getenv(settings[i].name);

        if (!applies(&settings[i], one_host))
            continue;
        fprintf(out, "%s=", settings[i].name);
        print_quoted(value != NULL ? value : settings[i].value, out);
        fputs(" \\\n", out);
    }
    for (size_t i = 0; i < line->count; i++) {
        print_quoted(line->argv[i], out);
        fputc(i + 1 < line->count ? ' ' : '\n', out);
    }
}

enum apd_code apd_launch_exec(const struct apd_command_line *line, struct apd_err *err)
{
    (void)execvp(line->argv[0], line->argv);
    return apd_fail_errno(err, "starting %s", line->argv[0]);
}
