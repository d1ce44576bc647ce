/* What happens before the loop runs: configuration, run directory, lock, generation, newest
 * checkpoint. Blocking. */
#ifndef APD_DAEMON_PREPARE_H
#define APD_DAEMON_PREPARE_H

#include "base/err.h"
#include "base/hash.h"
#include "proto/commit_log.h"
#include "proto/config.h"

#include <stddef.h>
#include <stdint.h>

struct apd_prepare_args {
    const char *run_dir;
    const char *config_path; /* NULL: run_dir/config.yaml, or the defaults if there is none */
    const char *const *overrides;
    size_t override_count;
    uint32_t workers;
    uint64_t lock_wait_ms;
};

struct apd_prepared {
    char *run_dir; /* absolute */
    struct apd_config config;
    char *config_yaml;
    char config_digest[APD_SHA256_HEX];
    uint64_t generation;
    int lock_fd; /* 0: none; kept open for life */
    struct apd_commit
        *commit; /* committed checkpoints that exist, oldest first; the last one is good */
    size_t commit_count;
    char **skipped; /* why newer ones were passed over */
    size_t skipped_count;
};

/* The generation is on the disk when this returns. On failure *out is a dead object. */
APD_MUST_USE enum apd_code apd_prepare(const struct apd_prepare_args *args,
                                       struct apd_prepared *out, struct apd_err *err);
void apd_prepared_fini(struct apd_prepared *prepared);

#endif
