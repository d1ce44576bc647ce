#include "daemon/bad_samples.h"

#include <stdlib.h>
#include <string.h>

/* Place of the first one that is not below `sample`. */
static size_t place_of(const struct apd_bad_samples *bad, uint64_t sample)
{
    size_t low = 0, high = bad->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (bad->sample[middle] < sample)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int apd_bad_samples_add(struct apd_bad_samples *bad, uint64_t sample)
{
    size_t at = place_of(bad, sample);

    if (at < bad->count && bad->sample[at] == sample)
        return 0;
    if (bad->count == bad->capacity) {
        size_t capacity = 2 * bad->capacity + 64;
        uint64_t *grown = realloc(bad->sample, capacity * sizeof *grown);

        if (grown == NULL)
            return 1;
        bad->sample = grown;
        bad->capacity = capacity;
    }
    memmove(bad->sample + at + 1, bad->sample + at, (bad->count - at) * sizeof *bad->sample);
    bad->sample[at] = sample;
    bad->count++;
    return 1;
}

void apd_bad_samples_fini(struct apd_bad_samples *bad)
{
    free(bad->sample);
    *bad = (struct apd_bad_samples){0};
}
