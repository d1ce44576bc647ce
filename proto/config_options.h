/* The option table of run.yaml: one row per option. The loader, the printer, the checks of type and
 * range and `advprop config explain` are made from it. Internal to proto/config*.c and run_dir.c.
 */
#ifndef APD_PROTO_CONFIG_OPTIONS_H
#define APD_PROTO_CONFIG_OPTIONS_H

#include "base/err.h"
#include "proto/config.h"

#include <stddef.h>

enum apd_option_type {
    /* These four may have the default "auto": */
    APD_OPTION_INT,   /* int64_t */
    APD_OPTION_REAL,  /* double */
    APD_OPTION_BOOL,  /* int64_t 0 or 1; on, off, true, false */
    APD_OPTION_ENUM,  /* int64_t: index into words */
    APD_OPTION_WORD,  /* char[size]: one of words */
    APD_OPTION_TEXT,  /* char[size]: UTF-8 without control characters */
    APD_OPTION_REALS, /* double[size] and an int64_t count */
};

struct apd_option {
    const char *key;          /* dotted */
    const char *unit;         /* "" if none */
    const char *initial;      /* as it would be written in the file; "auto": may be APD_AUTO */
    const char *help;         /* one sentence */
    const char *const *words; /* NULL-terminated, for ENUM and WORD */
    double min, max;          /* inclusive, for INT, REAL and each of REALS */
    enum apd_option_type type;
    int defines_result;  /* part of the digest */
    size_t offset;       /* in struct apd_config */
    size_t size;         /* bytes of a text, entries of a list */
    size_t count_offset; /* of a list's count */
};

extern const struct apd_option apd_options[];
extern const size_t apd_option_count;

#define APD_OPTION_VALUE_MAX (6 * APD_TEXT) /* bytes of any formatted value: every byte escaped */

/* NULL if there is none. */
const struct apd_option *apd_option_find(const char *key);

/* The nearest key or NULL; for messages. */
const char *apd_option_nearest(const char *key);

/* Parses a scalar (or "[a, b]" / "a, b" for a list) of `size` bytes into the option's field.
 * APD_CONFIG says what was expected and what was found. */
APD_MUST_USE enum apd_code apd_option_set(const struct apd_option *option, const char *text,
                                          size_t size, struct apd_config *config,
                                          struct apd_err *err);

/* Appends one number to a list option. */
APD_MUST_USE enum apd_code apd_option_append(const struct apd_option *option, const char *text,
                                             size_t size, struct apd_config *config,
                                             struct apd_err *err);

/* Empties a list option. */
void apd_option_clear(const struct apd_option *option, struct apd_config *config);

/* The value as it is written in the file: numbers in the shortest form that reads back to the same.
 */
void apd_option_format(const struct apd_option *option, const struct apd_config *config,
                       char out[APD_OPTION_VALUE_MAX]);

/* "a whole number from 1 to 64", "one of a, b": for messages and explain. */
void apd_option_expectation(const struct apd_option *option, char *out, size_t size);

#endif
