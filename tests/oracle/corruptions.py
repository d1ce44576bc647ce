"""The corruptions of docs/corruptions.md in numpy, SciPy and Pillow, on arrays of bytes [h][w][c]."""
import colorsys
import io

import numpy as np
import philox
from PIL import Image
from scipy import ndimage, stats

CORRUPT = 11
NAMES = ("gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost fog "
         "brightness contrast elastic_transform pixelate jpeg_compression speckle_noise gaussian_blur spatter "
         "saturate").split()
LUMA = np.array([0.299, 0.587, 0.114])

# Constants: severities 1 to 5 of images larger than 64 px (ImageNet-C), and of small ones (CIFAR-10-C).
CONSTANTS = {
    "gaussian_noise": ([.08, .12, .18, .26, .38], [.04, .06, .08, .09, .10]),
    "shot_noise": ([60, 25, 12, 5, 3], [500, 250, 100, 75, 50]),
    "impulse_noise": ([.03, .06, .09, .17, .27], [.01, .02, .03, .05, .07]),
    "defocus_blur": ([(3, .1), (4, .5), (6, .5), (8, .5), (10, .5)],
                     [(.3, .4), (.4, .5), (.5, .6), (1, .2), (1.5, .1)]),
    "glass_blur": ([(.7, 1, 2), (.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
                   [(.05, 1, 1), (.25, 1, 1), (.4, 1, 1), (.25, 1, 2), (.4, 1, 2)]),
    "motion_blur": ([(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)], [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)]),
    "zoom_blur": ([(1.11, .01), (1.16, .01), (1.21, .02), (1.26, .02), (1.31, .03)],
                  [(1.06, .01), (1.11, .01), (1.16, .01), (1.21, .01), (1.26, .01)]),
    "snow": ([(.1, .3, 3, .5, 10, 4, .8), (.2, .3, 2, .5, 12, 4, .7), (.55, .3, 4, .9, 12, 8, .7),
              (.55, .3, 4.5, .85, 12, 8, .65), (.55, .3, 2.5, .85, 12, 12, .55)],
             [(.1, .2, 1, .6, 8, 3, .95), (.1, .2, 1, .5, 10, 4, .9), (.15, .3, 1.75, .55, 10, 4, .9),
              (.25, .3, 2.25, .6, 12, 6, .85), (.3, .3, 1.25, .65, 14, 12, .8)]),
    "frost": ([(1, .4), (.8, .6), (.7, .7), (.65, .7), (.6, .75)], [(1, .2), (1, .3), (.9, .4), (.85, .4), (.75, .45)]),
    "fog": ([(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)], [(.2, 3), (.5, 3), (.75, 2.5), (1, 2), (1.5, 1.75)]),
    "brightness": ([.1, .2, .3, .4, .5], [.05, .1, .15, .2, .3]),
    "contrast": ([.4, .3, .2, .1, .05], [.75, .5, .4, .3, .15]),
    "elastic_transform": ([(488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88),
                           (29.28, 2.44, 4.88)],
                          [(0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, .96, .96)]),
    "pixelate": ([.6, .5, .4, .3, .25], [.95, .9, .85, .75, .65]),
    "jpeg_compression": ([25, 18, 15, 10, 7], [80, 65, 58, 50, 40]),
    "speckle_noise": ([.15, .2, .35, .45, .6], [.06, .1, .12, .16, .2]),
    "gaussian_blur": ([1, 2, 3, 4, 6], [.4, .6, .7, .8, 1]),
    "spatter": ([(.65, .3, 4, .69, .6, 0), (.65, .3, 3, .68, .6, 0), (.65, .3, 2, .68, .5, 0),
                 (.65, .3, 1, .65, 1.5, 1), (.67, .4, 1, .65, 1.5, 1)],
                [(.62, .1, .7, .7, .5, 0), (.65, .1, .8, .7, .5, 0), (.65, .3, 1, .69, .5, 0),
                 (.65, .1, .7, .69, .6, 1), (.65, .1, .5, .68, .6, 1)]),
    "saturate": ([(.3, 0), (.1, 0), (2, 0), (5, .1), (20, .2)], [(.3, 0), (.1, 0), (1.5, 0), (2, .1), (2.5, .2)]),
}


class Words:
    """The stream of one image, word after word."""

    def __init__(self, seed, name, severity, sample):
        self.place = seed, CORRUPT, NAMES.index(name) * 8 + severity, sample
        self.used = 0

    def take(self, count):
        blocks = np.arange(self.used // 4, (self.used + count + 3) // 4)
        words = philox.stream(*self.place, blocks).T.reshape(-1)[self.used % 4:][:count]
        self.used += count
        return words

    def between(self, low, high, shape=()):
        return low + (high - low) * philox.uniform(self.take(int(np.prod(shape)))).reshape(shape)

    def normal(self, shape):
        count = int(np.prod(shape))
        words = self.take(count + count % 2).astype(np.float64).reshape(-1, 2)
        radius = np.sqrt(-2 * np.log((words[:, 0] + 1) / 2 ** 32))
        angle = 2 * np.pi * words[:, 1] / 2 ** 32
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)[:count].reshape(shape)


def to_byte(x):
    return np.floor(255 * np.clip(x, 0, 1) + 2.0 ** -20).astype(np.uint8)


def gaussian(x, sigma, mode="nearest", truncate=4.0):
    return ndimage.gaussian_filter(x, (sigma, sigma, 0)[:x.ndim], mode=mode, truncate=truncate)


def luma(x):
    return x if x.shape[2] == 1 else (x * LUMA).sum(2, keepdims=True)


def color(rgb, x):
    rgb = np.array(rgb, np.float64)
    return rgb if x.shape[2] == 3 else np.array([(rgb * LUMA).sum()])


# ------------------------------------------------------------------ noise

def gaussian_noise(x, c, words):
    return x + c * words.normal(x.shape)


def speckle_noise(x, c, words):
    return x + c * x * words.normal(x.shape)


def shot_noise(x, c, words):
    u = (words.take(x.size).astype(np.float64) + 0.5) / 2 ** 32
    rate = x.reshape(-1) * c
    return np.where(rate > 0, stats.poisson.ppf(u, np.maximum(rate, 1e-9)), 0).reshape(x.shape) / c


def impulse_noise(x, c, words):
    drawn = words.take(x.size).reshape(x.shape)
    return np.where(philox.uniform(drawn) < c, drawn % np.uint64(2), x)


# ------------------------------------------------------------------ blur

def gaussian_blur(x, c, words):
    return gaussian(x, c)


def disk(radius, rim):
    reach, taps = (8, 3) if radius <= 8 else (radius, 5)
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    kernel = (x * x + y * y <= radius * radius).astype(np.float64)
    line = stats.norm.pdf(np.arange(taps) - taps // 2, scale=rim)
    line /= line.sum()
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, line, axis, mode="mirror")
    return kernel / (x * x + y * y <= radius * radius).sum()


def defocus_blur(x, c, words):
    return ndimage.correlate(x, disk(*c)[..., None], mode="mirror")


def glass_blur(x, c, words):
    sigma, reach, rounds = c
    x = to_byte(gaussian(x, sigma))
    h, w = x.shape[:2]
    for _ in range(rounds):
        rows, columns = range(h - reach, reach, -1), range(w - reach, reach, -1)
        count = len(rows) * len(columns)
        moves = (words.take(2 * count) * np.uint64(2 * reach) >> np.uint64(32)).astype(int).reshape(-1, 2) - reach
        moves = iter(moves.tolist())
        for row in rows:
            for column in columns:
                dx, dy = next(moves)
                x[row, column] = x[row + dy, column + dx]
    return gaussian(x / 255, sigma)


def motion(x, radius, sigma, degrees):
    """Bytes / 255 to bytes / 255."""
    taps = 2 * int(np.ceil(radius)) + 1
    weight = stats.norm.pdf(np.arange(taps), scale=sigma)
    direction = np.exp(1j * np.deg2rad(degrees))
    h, w = x.shape[:2]
    y, column = np.mgrid[:h, :w]
    out = 0
    for i, k in enumerate(weight / weight.sum()):
        at = i * direction
        dx, dy = int(np.ceil(at.real - 0.5)), int(np.ceil(at.imag - 0.5))
        out = out + k * x[np.clip(y + dy, 0, h - 1), np.clip(column + dx, 0, w - 1)]
    return np.floor(np.floor(65535 * out + 0.5) / 257) / 255


def motion_blur(x, c, words):
    return motion(x, *c, words.between(-45, 45))


def clipped_zoom(x, factor):
    """scipy.ndimage.zoom of the middle, cut to the old size."""
    size = np.array(x.shape[:2])
    part = np.ceil(size / factor).astype(int)
    y, column = (size - part) // 2
    large = ndimage.zoom(x[y:y + part[0], column:column + part[1]], (factor, factor, 1), order=1, mode="nearest")
    y, column = (np.array(large.shape[:2]) - size) // 2
    return large[y:y + size[0], column:column + size[1]]


def zoom_blur(x, c, words):
    factors = np.arange(1, *c)
    return (x + sum(clipped_zoom(x, factor) for factor in factors)) / (len(factors) + 1)


# ------------------------------------------------------------------ weather

def snow(x, c, words):
    mean, sigma, zoom, least, radius, blur, clear = c
    flakes = mean + sigma * words.normal(x.shape[:2])
    degrees = words.between(-135, -45)
    flakes = clipped_zoom(flakes[..., None], zoom)
    flakes = to_byte(np.where(flakes < least, 0, flakes)) / 255
    flakes = motion(flakes, radius, blur, degrees)
    white = np.maximum(x, 1.5 * luma(x) + 0.5)
    return clear * x + (1 - clear) * white + flakes + flakes[::-1, ::-1]


def frost(x, c, words):
    h, w = x.shape[:2]
    texture = np.zeros((h, w, 1))
    for octave in range(4):
        cells = 4 << octave
        lattice = words.between(0, 1, (cells + 1, cells + 1))
        y, column = np.arange(h)[:, None] * cells / max(h, w), np.arange(w)[None] * cells / max(h, w)
        i, j = y.astype(int), column.astype(int)
        fy, fx = ((3 - 2 * f) * f * f for f in (y - i, column - j))
        noise = (1 - fy) * ((1 - fx) * lattice[i, j] + fx * lattice[i, j + 1]) + \
            fy * ((1 - fx) * lattice[i + 1, j] + fx * lattice[i + 1, j + 1])
        texture[..., 0] += 8 / 15 / 2 ** octave * (1 - np.abs(2 * noise - 1))
    return c[0] * x + c[1] * texture ** 2 * color((.8, .9, 1), x)


def plasma(side, decay, words):
    field, wibble, step = np.zeros((side, side)), 100.0, side
    while step >= 2:
        half, grid = step // 2, (side // step, side // step)

        def mean_of(*points):
            return sum(points) / 4 + wibble * words.between(-wibble, wibble, grid)

        corners = field[::step, ::step]
        middles = mean_of(corners, np.roll(corners, -1, 0), np.roll(corners, -1, 1), np.roll(corners, (-1, -1), (0, 1)))
        field[half::step, half::step] = middles
        field[::step, half::step] = mean_of(middles, np.roll(middles, 1, 0), corners, np.roll(corners, -1, 1))
        field[half::step, ::step] = mean_of(middles, np.roll(middles, 1, 1), corners, np.roll(corners, -1, 0))
        step, wibble = half, wibble / decay
    return (field - field.min()) / np.ptp(field)


def fog(x, c, words):
    h, w = x.shape[:2]
    side = max(2, 1 << (max(h, w) - 1).bit_length())
    most = x.max()
    return (x + c[0] * plasma(side, c[1], words)[:h, :w, None]) * most / (most + c[0])


def over_hsv(x, change):
    """change(h, s, v) on every colour; grey: on its value."""
    colors, index = np.unique(x.reshape(-1, x.shape[2]), axis=0, return_inverse=True)
    if x.shape[2] == 1:
        out = [change(0, 0, v)[2:] for (v,) in colors]
    else:
        out = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*rgb))) for rgb in colors]
    return np.array(out)[index].reshape(x.shape)


def brightness(x, c, words):
    return over_hsv(x, lambda h, s, v: (h, s, min(v + c, 1)))


def canny(image, low=50, high=150):
    """Edges of bytes, as OpenCV finds them with its defaults."""
    image = image.astype(np.int64)
    dx, dy = (ndimage.sobel(image, axis, mode="nearest") for axis in (1, 0))
    size = np.pad(np.abs(dx) + np.abs(dy), 1)
    h, w = image.shape

    def at(y, x):
        return size[1 + y:1 + y + h, 1 + x:1 + x + w]

    here, flat, steep = at(0, 0), np.abs(dy) << 15, np.abs(dx) * 13573
    lean = dx * dy < 0
    horizontal = (here > at(0, -1)) & (here >= at(0, 1))
    vertical = (here > at(-1, 0)) & (here >= at(1, 0))
    diagonal = np.where(lean, (here > at(-1, 1)) & (here > at(1, -1)), (here > at(-1, -1)) & (here > at(1, 1)))
    ridge = np.where(flat < steep, horizontal, np.where(flat > steep + (np.abs(dx) << 16), vertical, diagonal))
    weak = ridge & (here > low)
    parts, count = ndimage.label(weak, np.ones((3, 3)))
    strong = np.unique(parts[weak & (here > high)])
    return np.isin(parts, strong[strong > 0])


def chamfer(edges, cap=20):
    """Length of the shortest way to an edge by steps of 1, 1.4 (diagonal) and 2.1969 (a knight's)."""
    y, x = np.abs(np.mgrid[-cap:cap + 1, -cap:cap + 1])
    long, short = np.maximum(x, y), np.minimum(x, y)
    length = np.where(long >= 2 * short, long - 2 * short + 2.1969 * short,
                      2.1969 * (long - short) + 1.4 * (2 * short - long))
    h, w = edges.shape
    out = np.full((h + 2 * cap, w + 2 * cap), float(cap))
    for row, column in np.argwhere(edges):
        part = out[row:row + 2 * cap + 1, column:column + 2 * cap + 1]
        np.minimum(part, length, out=part)
    return out[cap:-cap, cap:-cap]


def equalize(image):
    histogram = np.bincount(image.reshape(-1), minlength=256)
    darkest = np.flatnonzero(histogram)[0]
    if histogram[darkest] == image.size:
        return image
    sums = np.cumsum(histogram) - histogram[darkest]
    level = np.rint(np.maximum(sums, 0) * 255 / (image.size - histogram[darkest]))
    return level.astype(np.uint8)[image]


def shine(drops):
    """How water breaks the light."""
    box = np.ones((3, 3)) / 9
    distance = ndimage.correlate(chamfer(canny(drops)), box, mode="mirror")
    distance = equalize(np.floor(distance + 2.0 ** -20).astype(np.uint8)).astype(np.float64)
    relief = ndimage.correlate(distance, [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], mode="mirror")
    return drops * np.floor(ndimage.correlate(np.clip(relief, 0, 255), box, mode="mirror") + 0.5)


def spatter(x, c, words):
    mean, sigma, smooth, least, strength, mud = c
    liquid = gaussian(mean + sigma * words.normal(x.shape[:2]), smooth)
    liquid[liquid < least] = 0
    if mud:
        share = gaussian((liquid > least).astype(np.float64), strength)[..., None]
        share[share < 0.8] = 0
        return x * (1 - share) + share * color((63 / 255, 42 / 255, 20 / 255), x)
    light = shine(to_byte(liquid))[..., None]
    if light.max() == 0:
        return x
    return x + strength * light / light.max() * color((175 / 255, 238 / 255, 238 / 255), x)


# ------------------------------------------------------------------ digital

def contrast(x, c, words):
    mean = x.mean((0, 1))
    return (x - mean) * c + mean


def saturate(x, c, words):
    if x.shape[2] == 1:
        return x
    return over_hsv(x, lambda h, s, v: (h, min(s * c[0] + c[1], 1), v))


def elastic_transform(x, c, words):
    strength, sigma, reach = c
    h, w = x.shape[:2]
    side, middle = min(h, w) // 3, np.array([w // 2, h // 2])
    corners = middle + side * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + words.between(-reach, reach, (3, 2))
    shift = [strength * gaussian(words.between(-1, 1, (h, w)), sigma, "reflect", 3.0) if sigma > 0 else
             strength * words.between(-1, 1, (h, w)) for _ in range(2)]
    y, column = np.mgrid[:h, :w].astype(np.float64)
    if abs(np.linalg.det(moved[1:] - moved[0])) >= 1:
        matrix = np.linalg.solve(np.c_[moved, np.ones(3)], corners)
        from_x, from_y = np.einsum("ijk,kl->lij", np.stack([column, y, np.ones((h, w))], 2), matrix)
        x = np.stack([ndimage.map_coordinates(x[..., k], [from_y, from_x], order=1, mode="mirror")
                      for k in range(x.shape[2])], 2)
    return np.stack([ndimage.map_coordinates(x[..., k], [y + shift[1], column + shift[0]], order=1, mode="reflect")
                     for k in range(x.shape[2])], 2)


def as_pillow(image):
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def pixelate(image, c):
    h, w = image.shape[:2]
    small = as_pillow(image).resize((max(1, int(w * c)), max(1, int(h * c))), Image.BOX)
    return np.array(small.resize((w, h), Image.BOX)).reshape(image.shape)


def jpeg_compression(image, c):
    file = io.BytesIO()
    as_pillow(image).save(file, "JPEG", quality=c)
    return np.array(Image.open(file)).reshape(image.shape)


def corrupt(image, name, severity, seed, sample):
    """image: bytes [h][w] or [h][w][3]."""
    cube = image.reshape(*image.shape[:2], -1)
    constant = CONSTANTS[name][max(image.shape[:2]) <= 64][severity - 1]
    if name in ("pixelate", "jpeg_compression"):
        return globals()[name](cube, constant).reshape(image.shape)
    return to_byte(globals()[name](cube / 255, constant, Words(seed, name, severity, sample))).reshape(image.shape)
