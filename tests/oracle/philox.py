"""The random streams of docs/data.md in numpy: Philox 4x32-10, its streams, the keyed permutation."""
import math

import numpy as np

NOISE, NOISE_CHOICE, SHUFFLE, PLAN_SHARDS, PLAN_WINDOW, ATTACK_TARGET, MIX = 3, 4, 5, 6, 7, 9, 10

MASK32, MASK64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def philox(key, counter):
    """Philox 4x32-10 (Salmon et al., SC 2011). key: 2 words, counter: 4 words or arrays of words."""
    c = [np.asarray(word, np.uint64) for word in counter]
    k0, k1 = key
    low, shift = np.uint64(MASK32), np.uint64(32)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(b >> shift) ^ c[1] ^ np.uint64(k0), b & low, (a >> shift) ^ c[3] ^ np.uint64(k1), a & low]
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return c


def stream(seed, purpose, epoch, ident, block):
    """The four words of a block, as an array [4] or [4, blocks]."""
    counter = (block, purpose << 24 | epoch, ident & MASK32, ident >> 32)
    return np.stack(np.broadcast_arrays(*philox((seed & MASK32, seed >> 32), counter)))


def uniform(words):
    """[0, 1)"""
    return (words >> np.uint64(8)).astype(np.float64) * 2.0 ** -24


def below(word, n):
    """0 .. n - 1"""
    return int(word) * n >> 32


def key64(words):
    return int(words[0]) | int(words[1]) << 32


def pixel_noise(seed, epoch, sample, pixels):
    """U(-1, 1) for each pixel of an image, in its order c, y, x."""
    words = stream(seed, NOISE, epoch, sample, np.arange((pixels + 3) // 4))
    return 2 * uniform(words.T.reshape(-1)[:pixels]) - 1


def noise_is_used(seed, step, probability):
    return uniform(stream(seed, NOISE_CHOICE, 0, step, 0))[0] < probability


def mix64(x):
    """The finaliser of splitmix64."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK64
    return x ^ x >> 31


def permute(key, n, x):
    """Image of x under the keyed permutation of 0 .. n - 1."""
    half = 1
    while 4 ** half < n:
        half += 1
    mask = 2 ** half - 1
    while True:
        left, right = x >> half, x & mask
        for turn in range(6):
            left, right = right, left ^ mix64(key ^ mix64((right + (turn << 56) + 1) & MASK64)) & mask
        x = left << half | right
        if x < n:
            return x


def shuffle_sources(seed, step, n):
    """Slot d of the adv pass takes the attacked image of slot sources[d]."""
    key = key64(stream(seed, SHUFFLE, 0, step, 0))
    return [permute(key, n, d) for d in range(n)]


def target_shift(seed, epoch, sample, classes):
    """What a targeted attack adds to the label."""
    return below(stream(seed, ATTACK_TARGET, epoch, sample, 0)[0], classes)


def mix_block(seed, lane, step, part, n):
    """Block n of the mixing of a lane's pass. part: 0 clean, 1 adv, 2 + k noise pass k."""
    return stream(seed, MIX, lane, step, 4096 * part + n)


def mix_partners(words, n):
    """Image i is mixed with image partners[i]. words: block 0."""
    return [permute(key64(words), n, i) for i in range(n)]


def mix_share(seed, lane, step, part, alpha):
    """Beta(alpha, alpha) by Joehnk's method."""
    for n in range(1, 4096):
        a, b = (math.log((int(word) + 0.5) / 2 ** 32) / alpha for word in mix_block(seed, lane, step, part, n)[:2])
        if math.exp(a) + math.exp(b) <= 1:
            return 1 / (1 + math.exp(b - a))
    return 0.5


def mix_box(words, share, h, w):
    """Rows and columns of the box of CutMix. words: block 0."""

    def extent(word, size):
        half = math.floor(size * math.sqrt(share)) // 2
        centre = below(word, size)
        return slice(max(0, centre - half), min(size, centre + half))

    return extent(words[2], h), extent(words[3], w)
