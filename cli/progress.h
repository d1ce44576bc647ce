/* Progress on a stream: one line that is redrawn on a terminal, a line now and then otherwise. */
#ifndef APD_CLI_PROGRESS_H
#define APD_CLI_PROGRESS_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

struct apd_progress {
    FILE *out;
    int terminal;
    int drawn;         /* a line without line end stands on the terminal */
    uint64_t every_ms; /* least time between plain lines */
    uint64_t next_ms;
    size_t evaluations;  /* shown so far */
    uint64_t generation; /* that they belong to */
    char state[32];      /* shown last */
    int notice;          /* of this generation: was shown */
};

/* Looks whether `out` is a terminal. */
void apd_progress_init(struct apd_progress *progress, FILE *out, uint64_t every_ms);

/* Shows the notice, new evaluations, then the progress. */
void apd_progress_show(struct apd_progress *progress, const json_t *status);

/* Ends a line that is being redrawn, so that other text can follow. */
void apd_progress_break(struct apd_progress *progress);

#endif
