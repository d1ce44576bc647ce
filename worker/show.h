/* What the worker program's tools print: results are built as JSON and printed as that or, by each
 * tool, for people. Texts of foreign files never reach a terminal as they are. */
#ifndef APD_WORKER_SHOW_H
#define APD_WORKER_SHOW_H

#include "base/err.h"

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

/* One line of `object`. NULL: APD_NOMEM, for callers that have just packed it. */
APD_MUST_USE enum apd_code apd_show_json(const json_t *object, struct apd_err *err);

/* Bytes that are no text: into the file `path`, or to stdout if it is NULL; APD_USAGE if that is a
 * terminal. */
APD_MUST_USE enum apd_code apd_show_bytes(const char *path, const void *data, size_t size,
                                          struct apd_err *err);

/* Null for what JSON has no number for: infinity, NaN. */
json_t *apd_show_real(double value);

/* `text` padded to `width`, control characters as "?". */
void apd_show_text(const char *text, int width, FILE *out);

/* A string of any bytes; those that are no UTF-8 become "?". */
json_t *apd_show_string(const char *text);

/* Texts and numbers of an object; "" and 0 where there is none. */
const char *apd_show_get(const json_t *object, const char *key);
long long apd_show_count(const json_t *object, const char *key);

#endif
