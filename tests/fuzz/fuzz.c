#include "tests/fuzz/fuzz.h"

#include "base/clock.h"

#include <string.h>

static uint64_t round_seed;

/* Bytes that break parsers more often than others. */
static unsigned char nasty_byte(struct test_random *random)
{
    static const unsigned char nasty[] = {0,   1,   0x7f, 0x80, 0xff, '"', '\\', '{', '}',
                                          '[', ']', ',',  ':',  '-',  '0', '9',  'e', '\n'};

    return test_below(random, 2) == 0 ? (unsigned char)test_next(random)
                                      : nasty[test_below(random, sizeof nasty)];
}

static size_t damage_once(struct test_random *random, unsigned char *data, size_t size, size_t room)
{
    size_t at = size == 0 ? 0 : test_below(random, size);
    size_t most = size - at < 16 ? size - at : 16;
    size_t n = most == 0 ? 0 : 1 + test_below(random, most);

    switch (test_below(random, 6)) {
    case 0: /* flip a bit */
        if (size > 0)
            data[at] ^= (unsigned char)(1 << test_below(random, 8));
        return size;
    case 1: /* replace */
        for (size_t i = 0; i < n; i++)
            data[at + i] = nasty_byte(random);
        return size;
    case 2: /* cut the end off */
        return at;
    case 3: /* take a piece out */
        memmove(data + at, data + at + n, size - at - n);
        return size - n;
    case 4: /* double a piece */
        if (size + n > room)
            return size;
        memmove(data + at + n, data + at, size - at);
        return size + n;
    default: /* insert a byte */
        if (size + 1 > room)
            return size;
        memmove(data + at + 1, data + at, size - at);
        data[at] = nasty_byte(random);
        return size + 1;
    }
}

size_t fuzz_damage(struct test_random *random, const unsigned char *sound, size_t size,
                   unsigned char *out)
{
    size_t room = 2 * size + 64, now = size;

    memcpy(out, sound, size);
    for (uint64_t times = 1 + test_below(random, 4); times > 0; times--)
        now = damage_once(random, out, now, room);
    return now;
}

int fuzz_main(int argc, char **argv, void (*one)(struct test_random *random))
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 3, end_s = apd_now_s() + seconds;
    struct test_random seeds = {.state = argc > 2 ? strtoull(argv[2], NULL, 0)
                                                  : test_random_start().state};
    uint64_t rounds = 0;

    while (apd_now_s() < end_s) {
        struct test_random random;

        round_seed = seeds.state;
        random.state = test_next(&seeds);
        one(&random);
        rounds++;
    }
    printf("%" PRIu64 " rounds in %g s\n", rounds, seconds);
    return rounds > 0 ? 0 : 1;
}

void fuzz_check(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "%s, at seed %" PRIu64 "\n", what, round_seed);
    abort();
}
