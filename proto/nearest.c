/* Optimal string alignment distance (Damerau-Levenshtein without repeated edits of one substring),
 * three rows at a time. Words longer than the row are no candidates. */
#include "proto/nearest.h"

#include <string.h>

#define WORD_MAX   64
#define PREFIX_MIN 3 /* letters of a beginning that counts */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t distance(const char *a, size_t n, const char *b, size_t m)
{
    size_t rows[3][WORD_MAX + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];

    for (size_t j = 0; j <= m; j++)
        above[j] = before[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *oldest = before;

        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = least(above[j - 1] + (a[i - 1] != b[j - 1]), least(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], before[j - 2] + 1);
        }
        before = above;
        above = row;
        row = oldest;
    }
    return above[m];
}

const char *apd_nearest(const char *word, const char *const *candidates, size_t count)
{
    size_t n = strlen(word), best_distance = n / 3 + 2;
    const char *best = NULL;

    if (n > WORD_MAX)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t m = strlen(candidates[i]);
        size_t d = m <= WORD_MAX ? distance(word, n, candidates[i], m) : best_distance;

        /* A word that somebody began to type is near, however long the rest. */
        if (n >= PREFIX_MIN && strncmp(word, candidates[i], n) == 0)
            d = 1;
        if (d < best_distance) {
            best_distance = d;
            best = candidates[i];
        }
    }
    return best;
}
