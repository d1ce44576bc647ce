/* A file of lines that only grows (events.jsonl, metrics.jsonl): lines are gathered in memory and
 * written in one piece when asked. Without fsync, so that the loop thread may do it. */
#ifndef APD_DAEMON_JOURNAL_H
#define APD_DAEMON_JOURNAL_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct apd_journal {
    int fd; /* 0: not open */
    char *path;
    char *text;
    size_t used, size;
    int failed;       /* the last write failed and was told */
    uint64_t dropped; /* lines that found no room while writing failed */
};

/* Opens for appending; a line torn by a crash is ended first. */
APD_MUST_USE enum apd_code apd_journal_open(struct apd_journal *journal, const char *path,
                                            struct apd_err *err);

/* Adds a line (the text has no newline). When no room is left it is written out first. */
void apd_journal_add(struct apd_journal *journal, const char *line);

/* Writes what was gathered. While it fails (disk full) lines are kept up to 1 MiB and tried again;
 * the failure and its end are logged once each. */
void apd_journal_flush(struct apd_journal *journal);

/* Flushes, closes, frees. */
void apd_journal_close(struct apd_journal *journal);

#endif
