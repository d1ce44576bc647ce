/* Fuzzing without tools: damage sound bytes at random, feed them, for a bounded time.
 *
 *   fuzz_NAME [SECONDS [SEED]]       the seed of every round is printed when it fails
 *
 * A fuzz program fails by aborting, or because a sanitizer makes it. */
#ifndef APD_TESTS_FUZZ_FUZZ_H
#define APD_TESTS_FUZZ_FUZZ_H

#include "tests/support/random.h"

#include <stddef.h>
#include <stdint.h>

/* Copies `size` bytes of `sound` into `out` (room for 2 * size + 64) and damages the copy: some of
 * flipped bits, replaced, cut, inserted, doubled or swapped pieces. Returns the new size. */
size_t fuzz_damage(struct test_random *random, const unsigned char *sound, size_t size,
                   unsigned char *out);

/* Runs `one(&random)` with a new seed each round until the time is over. */
int fuzz_main(int argc, char **argv, void (*one)(struct test_random *random));

/* Ends the program with the round's seed when `good` is 0. */
void fuzz_check(int good, const char *what);

#endif
