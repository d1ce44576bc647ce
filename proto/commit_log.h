/* The commit log: <run>/checkpoints/commits.jsonl, one JSON object a line. A checkpoint exists once
 * its line is there and sound; docs/formats.md has the format. Only the coordinator appends.
 * Blocking.
 *
 * Newer means: of a higher generation, or of the same and further down. The step does not count: a
 * run that went back to an older checkpoint goes on from there. */
#ifndef APD_PROTO_COMMIT_LOG_H
#define APD_PROTO_COMMIT_LOG_H

#include "base/err.h"
#include "base/hash.h"

#include <stddef.h>
#include <stdint.h>

#define APD_COMMIT_LOG_FILE "checkpoints/commits.jsonl" /* below the run directory */
#define APD_COMMIT_PATH     1024
#define APD_COMMIT_REASON   32

struct apd_commit {
    uint64_t step;
    uint32_t epoch;
    char path[APD_COMMIT_PATH]; /* of the file, relative to the run directory, without ".." */
    char sha256[APD_SHA256_HEX];
    uint64_t bytes;
    uint64_t generation;
    double date_s;      /* seconds since 1970 */
    uint64_t main_top1; /* of the newest evaluation on main BN at this step; images 0: none */
    uint64_t main_images;
    char reason[APD_COMMIT_REASON]; /* "interval", "epoch", "drain", "request", "end" */
};

/* Records in the order of the file, and one line of text for each line or checkpoint passed over.
 */
struct apd_commit_list {
    struct apd_commit *commit;
    size_t count;
    char **skipped;
    size_t skipped_count;
};

/* `= {0}` is a valid empty list. */
void apd_commit_list_fini(struct apd_commit_list *list);

/* Appends the record and makes it durable (fsync of the file, and of the folder when the file is
 * new). If any of it fails the record is void: the log is cut back to what it was, and the message
 * says so. A torn line left by a crash is closed first, so that it cannot swallow this one. */
APD_MUST_USE enum apd_code
apd_commit_log_append(const char *run_dir, const struct apd_commit *commit, struct apd_err *err);

/* All sound records; lines that are torn, altered or senseless are passed over, each with a reason
 * in out->skipped. No log: an empty list. The caller frees with apd_commit_list_fini, on failure
 * nothing. */
APD_MUST_USE enum apd_code apd_commit_log_load(const char *run_dir, struct apd_commit_list *out,
                                               struct apd_err *err);

/* Whether the record's file is there with its size and SHA-256; APD_IO or APD_DATA says how not.
 * Hashes the file. */
APD_MUST_USE enum apd_code
apd_commit_log_check(const char *run_dir, const struct apd_commit *commit, struct apd_err *err);

/* The newest record whose file exists, has its size and its SHA-256. out->count is 1, or 0 if there
 * is none; out->skipped says for every newer one (and for every bad line) why not, newest first.
 * Hashes the file. The caller frees *out, on failure nothing. */
APD_MUST_USE enum apd_code
apd_commit_log_newest_good(const char *run_dir, struct apd_commit_list *out, struct apd_err *err);

#endif
