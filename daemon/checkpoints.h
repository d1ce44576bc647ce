/* The committed checkpoints that exist, and which of them to keep: the newest ones, the best one,
 * and one for every N-th epoch. Pure. */
#ifndef APD_DAEMON_CHECKPOINTS_H
#define APD_DAEMON_CHECKPOINTS_H

#include "base/err.h"
#include "proto/commit_log.h"

#include <stddef.h>

struct apd_checkpoints {
    struct apd_commit *commit; /* [count], in the order of the commit log */
    size_t count, capacity;
};

void apd_checkpoints_fini(struct apd_checkpoints *list);

/* Adds the newest one. An older record of the same path is dropped: its file was replaced. */
APD_MUST_USE enum apd_code apd_checkpoints_add(struct apd_checkpoints *list,
                                               const struct apd_commit *commit,
                                               struct apd_err *err);

/* NULL if there is none. */
const struct apd_commit *apd_checkpoints_newest(const struct apd_checkpoints *list);

/* By accuracy on main BN, the earlier one if equal; NULL if none was evaluated. */
const struct apd_commit *apd_checkpoints_best(const struct apd_checkpoints *list);

/* Takes one checkpoint that need not be kept out of the list into *out; 0 if there is none. Kept
 * are the `keep_last` newest (at least 1), the best, and of every epoch that is a multiple of
 * keep_every_epochs (0: of none) the first. */
int apd_checkpoints_take_surplus(struct apd_checkpoints *list, size_t keep_last,
                                 uint32_t keep_every_epochs, struct apd_commit *out);

#endif
