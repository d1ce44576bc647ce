/* See checkpoints.h. */
#include "daemon/checkpoints.h"

#include <stdlib.h>
#include <string.h>

void apd_checkpoints_fini(struct apd_checkpoints *list)
{
    free(list->commit);
    *list = (struct apd_checkpoints){0};
}

static void drop(struct apd_checkpoints *list, size_t i)
{
    list->count--;
    memmove(&list->commit[i], &list->commit[i + 1], (list->count - i) * sizeof *list->commit);
}

enum apd_code apd_checkpoints_add(struct apd_checkpoints *list, const struct apd_commit *commit,
                                  struct apd_err *err)
{
    for (size_t i = list->count; i > 0; i--)
        if (strcmp(list->commit[i - 1].path, commit->path) == 0)
            drop(list, i - 1);
    if (list->count == list->capacity) {
        size_t capacity = list->capacity > 0 ? 2 * list->capacity : 16;
        struct apd_commit *grown = realloc(list->commit, capacity * sizeof *grown);

        if (grown == NULL)
            return apd_fail(err, APD_NOMEM, "a list of %zu checkpoints", capacity);
        list->commit = grown;
        list->capacity = capacity;
    }
    list->commit[list->count++] = *commit;
    return APD_OK;
}

const struct apd_commit *apd_checkpoints_newest(const struct apd_checkpoints *list)
{
    return list->count > 0 ? &list->commit[list->count - 1] : NULL;
}

static double accuracy(const struct apd_commit *commit)
{
    return (double)commit->main_top1 / (double)commit->main_images;
}

const struct apd_commit *apd_checkpoints_best(const struct apd_checkpoints *list)
{
    const struct apd_commit *best = NULL;

    for (size_t i = 0; i < list->count; i++) {
        const struct apd_commit *commit = &list->commit[i];

        if (commit->main_images > 0 && (best == NULL || accuracy(commit) > accuracy(best)))
            best = commit;
    }
    return best;
}

static int first_of_kept_epoch(const struct apd_checkpoints *list, size_t i, uint32_t every)
{
    uint32_t epoch = list->commit[i].epoch;

    if (every == 0 || epoch == 0 || epoch % every != 0)
        return 0;
    for (size_t k = 0; k < i; k++)
        if (list->commit[k].epoch == epoch)
            return 0;
    return 1;
}

int apd_checkpoints_take_surplus(struct apd_checkpoints *list, size_t keep_last,
                                 uint32_t keep_every_epochs, struct apd_commit *out)
{
    const struct apd_commit *best = apd_checkpoints_best(list);

    if (keep_last == 0)
        keep_last = 1;
    for (size_t i = 0; i + keep_last < list->count; i++) {
        if (&list->commit[i] == best || first_of_kept_epoch(list, i, keep_every_epochs))
            continue;
        *out = list->commit[i];
        drop(list, i);
        return 1;
    }
    return 0;
}
