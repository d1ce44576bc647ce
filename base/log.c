#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    const char *comp;
    int rank;
    enum apd_log_level level;
} logger = {"advprop", -1, APD_LOG_INFO};

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

void apd_log_init(const char *comp, int rank, enum apd_log_level level)
{
    logger.comp = comp;
    logger.rank = rank;
    logger.level = level;
}

int apd_log_level_parse(const char *name)
{
    for (int i = 0; i < (int)(sizeof level_names / sizeof *level_names); i++)
        if (strcmp(name, level_names[i]) == 0)
            return i;
    return -1;
}

void apd_log(enum apd_log_level level, const char *msg, const char *fields, ...)
{
    char line[2048];
    struct timespec now;
    struct tm utc;
    size_t used;
    va_list args;

    if (level > logger.level)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    used = strftime(line, sizeof line, "ts=%Y-%m-%dT%H:%M:%S", &utc);
    used += (size_t)snprintf(line + used, sizeof line - used, ".%03ldZ level=%s comp=%s",
                             now.tv_nsec / 1000000, level_names[level], logger.comp);
    if (logger.rank >= 0)
        used += (size_t)snprintf(line + used, sizeof line - used, " rank=%d", logger.rank);
    used += (size_t)snprintf(line + used, sizeof line - used, " msg=\"%.300s\"", msg);
    if (fields[0] != '\0') {
        int n;

        line[used++] = ' ';
        va_start(args, fields);
        n = vsnprintf(line + used, sizeof line - used - 1, fields, args);
        va_end(args);
        if (n > 0)
            used += (size_t)n < sizeof line - used - 1 ? (size_t)n : sizeof line - used - 2;
    }
    line[used++] = '\n';
    /* A log that cannot be written has nowhere to be reported. */
    if (write(STDERR_FILENO, line, used) < 0)
        return;
}
