#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void format_message(struct apd_err *err, const char *format, va_list args)
{
    /* Truncation is fine: the message is for people, and its head names the place. */
    (void)vsnprintf(err->msg, sizeof err->msg, format, args);
}

enum apd_code apd_fail(struct apd_err *err, enum apd_code code, const char *format, ...)
{
    va_list args;

    err->sys = code == APD_IO ? errno : 0;
    err->code = code;
    va_start(args, format);
    format_message(err, format, args);
    va_end(args);
    return code;
}

enum apd_code apd_fail_errno(struct apd_err *err, const char *format, ...)
{
    va_list args;
    size_t used;

    err->sys = errno;
    err->code = APD_IO;
    va_start(args, format);
    format_message(err, format, args);
    va_end(args);
    used = strlen(err->msg);
    (void)snprintf(err->msg + used, sizeof err->msg - used, ": %s", strerror(err->sys));
    return APD_IO;
}

enum apd_code apd_prefix(struct apd_err *err, const char *format, ...)
{
    char old[sizeof err->msg];
    va_list args;
    size_t used;

    memcpy(old, err->msg, sizeof old);
    va_start(args, format);
    format_message(err, format, args);
    va_end(args);
    used = strlen(err->msg);
    (void)snprintf(err->msg + used, sizeof err->msg - used, ": %s", old);
    return err->code;
}

const char *apd_code_name(enum apd_code code)
{
    static const char *const names[] = {
        [APD_OK] = "ok",          [APD_CONFIG] = "configuration", [APD_USAGE] = "usage",
        [APD_DATA] = "data",      [APD_IO] = "input/output",      [APD_NOMEM] = "out of memory",
        [APD_DEVICE] = "device",  [APD_PEER] = "peer lost",       [APD_TIMEOUT] = "timeout",
        [APD_PROTO] = "protocol", [APD_CANCELED] = "canceled",    [APD_BUG] = "internal error",
    };
    return (unsigned)code < sizeof names / sizeof *names ? names[code] : "unknown";
}

int apd_exit_status(enum apd_code code)
{
    switch (code) {
    case APD_OK:
        return APD_EXIT_DONE;
    case APD_USAGE:
        return APD_EXIT_USAGE;
    case APD_CONFIG:
        return APD_EXIT_CONFIG;
    case APD_DATA:
        return APD_EXIT_DATA;
    case APD_IO:
    case APD_NOMEM:
    case APD_DEVICE:
        return APD_EXIT_UNAVAILABLE;
    case APD_PEER:
    case APD_TIMEOUT:
    case APD_CANCELED:
        return APD_EXIT_RESTART;
    case APD_PROTO:
    case APD_BUG:
        break;
    }
    return APD_EXIT_INTERNAL;
}
