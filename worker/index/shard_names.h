/* Names of shards from what people write: one file, a folder (its *.tar, sorted), a glob pattern,
 * or brace ranges as a shell expands them: train-{0000..1023}.tar, {a,b}-{0..3}/{x,y{1..2}}.tar. */
#ifndef APD_WORKER_INDEX_SHARD_NAMES_H
#define APD_WORKER_INDEX_SHARD_NAMES_H

#include "base/err.h"

#include <stddef.h>

enum { APD_SHARD_NAMES_MAX = 1000000 };

struct apd_names {
    char **name;
    size_t count, capacity;
};

/* Braces only, in the order of a shell; the names need not exist. APD_USAGE: a brace without its
 * partner or with neither range nor list inside, or more than APD_SHARD_NAMES_MAX names. On failure
 * *names is what it was or longer; the caller ends it. */
APD_MUST_USE enum apd_code apd_brace_expand(const char *pattern, struct apd_names *names,
                                            struct apd_err *err);

/* The files that `pattern` stands for; braces first, then globs, each sorted. A pattern that names
 * an existing file or folder as it is written means that. APD_CONFIG: a name that is not there or
 * a glob without a match. */
APD_MUST_USE enum apd_code apd_shard_names(const char *pattern, struct apd_names *names,
                                           struct apd_err *err);

/* Takes a copy of the first `size` bytes of name. */
APD_MUST_USE enum apd_code apd_names_add(struct apd_names *names, const char *name, size_t size,
                                         struct apd_err *err);
void apd_names_fini(struct apd_names *names);

#endif
