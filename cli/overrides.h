/* RUN.yaml [key=value ...] as several commands take it. */
#ifndef APD_CLI_OVERRIDES_H
#define APD_CLI_OVERRIDES_H

#include "base/err.h"
#include "proto/config.h"

#include <argp.h>
#include <stddef.h>

#define APD_OVERRIDES_MAX 96

struct apd_overrides {
    const char *path; /* NULL: none given */
    const char *text[APD_OVERRIDES_MAX];
    size_t count;
};

/* For ARGP_KEY_ARG: the first argument is the file, the others are overrides. */
error_t apd_overrides_take(struct apd_overrides *overrides, char *arg, struct argp_state *state);

APD_MUST_USE enum apd_code apd_overrides_load(const struct apd_overrides *overrides,
                                              struct apd_config *out, struct apd_err *err);

#endif
