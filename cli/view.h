/* A status as text: the page of `advprop status`, the shard table, one line of progress. Takes JSON
 * (cli/fields.h); writes where it is told. */
#ifndef APD_CLI_VIEW_H
#define APD_CLI_VIEW_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

/* The page: several lines "name  text", then the workers. */
void apd_view_status(const json_t *status, FILE *out);

/* Which lane of which worker reads which shards in which epoch. */
void apd_view_shards(const json_t *shards, FILE *out);

/* One event. */
void apd_view_event(const json_t *event, FILE *out);

/* "main 90.12 %, aux 89.77 %" of the evaluations of one epoch from `first` on; returns the index
 * after the last one. */
size_t apd_view_evaluations(const json_t *list, size_t first, FILE *out);

/* The state of the run; "evaluating" while the last evaluations run, beside the last saving. */
const char *apd_view_doing(const json_t *status);

/* Progress in one line without a line end. columns 0: plain words; otherwise with a bar, at most so
 * many columns. */
void apd_view_progress(const json_t *status, unsigned columns, char *out, size_t size);

#endif
