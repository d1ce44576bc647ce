/* The candidate nearest to a mistyped word (Damerau-Levenshtein), for "did you mean". */
#ifndef APD_PROTO_NEAREST_H
#define APD_PROTO_NEAREST_H

#include <stddef.h>

/* NULL if nothing is close enough (distance over a third of the word + 1). A candidate that begins
 * with the word (3 letters or more) is at distance 1. */
const char *apd_nearest(const char *word, const char *const *candidates, size_t count);

#endif
