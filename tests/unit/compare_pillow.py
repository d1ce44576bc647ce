"""Our decoder beside Pillow, pixel for pixel: formats, colour modes, odd sizes, boxes at every edge, up and down.

Usage: compare_pillow.py DECODE_TOOL PICTURE_TOOL

Prints, per kind of file, how many views were compared and the largest and the mean difference in grey levels.
"""
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib

try:
    import numpy
    from PIL import Image, ImageFile
except ImportError:
    sys.exit(77)
try:
    from torchvision import transforms
except ImportError:
    transforms = None

SIZES = ((83, 59), (250, 187), (1, 1), (64, 3), (3, 64), (1, 40))
VIEWS = 8


class Ours:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, path, request):
        self.process.stdin.write(f"{path} {request}\n".encode())
        self.process.stdin.flush()
        line = self.process.stdout.readline().decode()
        if not line.startswith("ok "):
            raise OSError(line)
        width, height = map(int, line.split()[1:3])
        return numpy.frombuffer(self.process.stdout.read(width * height * 3), numpy.uint8).reshape(height, width, 3)

    def view(self, path, box, size, flip):
        numbers = (*(box or (0, 0, 0, 0)), *(size or (0, 0)))
        return self.ask(path, "box %d %d %d %d %d %d window 0 0 0 0 " % numbers + str(int(flip)))


def pillow_view(image, box, size, flip):
    if box:
        x, y, w, h = box
        image = image.crop((x, y, x + w, y + h))
    if size:
        image = image.resize(size, Image.BILINEAR)
    return numpy.asarray(image.transpose(Image.FLIP_LEFT_RIGHT) if flip else image)


def views(random, width, height):
    """The whole image, the whole image resized, then boxes; those are pushed to the edges every second time."""
    yield None, None, False
    for i in range(VIEWS):
        size = tuple(int(n) for n in random.integers(1, 260, 2)) if i % 4 else None
        if i < 2:
            yield None, (57, 80) if i else (300, 290), bool(i)
            continue
        w, h = int(random.integers(1, width + 1)), int(random.integers(1, height + 1))
        x, y = int(random.integers(0, width - w + 1)), int(random.integers(0, height - h + 1))
        if i % 2:
            x, y = (0, width - w)[i // 2 % 2], (0, height - h)[i // 4 % 2]
        yield (x, y, w, h), size, i % 3 == 0


def pattern(random, width, height):
    y, x = numpy.mgrid[0:height, 0:width]
    waves = numpy.stack([numpy.sin(x / 7 + y / 13), numpy.sin(x / 23 - y / 5), numpy.cos(x * y / 900)], -1)
    return (127 + 100 * waves + random.normal(0, 20, waves.shape)).clip(0, 255).astype(numpy.uint8)


# ---- files ----

def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_png(path, random, width, height, colour, bits, interlaced=False, transparency=None):
    """Any colour type and depth, random samples and row filters; Pillow cannot write most of them."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for x, y, step_x, step_y in passes if interlaced else ((0, 0, 1, 1),):
        w, h = -(-(width - x) // step_x), -(-(height - y) // step_y)
        if w > 0 and h > 0:
            size = (w * channels * bits + 7) // 8
            for _ in range(h):
                if (colour, bits) == (0, 16):  # around 255, where Pillow cuts off
                    rows += b"\0" + random.integers(0, 500, w).astype(">u2").tobytes()
                else:
                    rows += bytes([random.integers(0, 5)]) + random.bytes(size)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))
    if colour == 3:
        data += chunk(b"PLTE", random.integers(0, 256, 3 * 2**bits, dtype=numpy.uint8).tobytes())
    if transparency:
        data += chunk(b"tRNS", transparency)
    packed = zlib.compress(rows)
    half = len(packed) // 2
    path.write_bytes(data + chunk(b"IDAT", packed[:half]) + chunk(b"IDAT", packed[half:]) + chunk(b"IEND", b""))


def write_pngs(folder, random):
    for width, height in SIZES:
        for colour, depths in ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))):
            for bits in depths:
                for interlaced in (False, True):
                    name = f"PNG type {colour}, {bits} bits{', interlaced' * interlaced}-{width}x{height}.png"
                    write_png(folder / name.replace(" ", "_"), random, width, height, colour, bits, interlaced)
        for colour, transparency in ((0, b"\0\7"), (2, b"\0\1\0\2\0\3"), (3, bytes(range(200)))):
            write_png(folder / f"PNG_type_{colour},_tRNS-{width}x{height}.png", random, width, height, colour, 8,
                      transparency=transparency)


def write_webps(folder, random):
    for width, height in SIZES:
        opaque = Image.fromarray(pattern(random, width, height))
        alpha = opaque.copy()
        alpha.putalpha(Image.fromarray(pattern(random, width, height)[..., 0]))
        for lossless in (False, True):
            for image, name in ((opaque, ""), (alpha, ",_alpha")):
                image.save(folder / f"WebP{',_lossless' * lossless}{name}-{width}x{height}.webp", lossless=lossless)


# ---- comparisons ----

def compare_views(ours, folder, random):
    """Kind of file -> [views, largest difference, sum of the means]."""
    found = {}
    for path in sorted(folder.iterdir()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # palette and transparency
            image = Image.open(path).convert("RGB")
        entry = found.setdefault(path.stem.rsplit("-", 1)[0].replace("_", " "), [0, 0, 0.0])
        for box, size, flip in views(random, *image.size):
            expected, have = pillow_view(image, box, size, flip), ours.view(path, box, size, flip)
            assert expected.shape == have.shape, (path, box, size)
            off = numpy.abs(expected.astype(int) - have)
            entry[:] = entry[0] + 1, max(entry[1], int(off.max())), entry[2] + off.mean()
    return found


def compare_evaluation(ours, folder):
    """Resize and CenterCrop, as torchvision has them."""
    count = 0
    for path in sorted(folder.iterdir()):
        image = Image.open(path).convert("RGB")
        if max(image.size) > 20 * min(image.size):
            continue
        for side, crop in ((256, 224), (40, 33), (64, 64)):
            transform = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(crop)])
            have = ours.ask(path, f"centre {side} {crop}")
            assert (numpy.asarray(transform(image)) == have).all(), (path, side, crop)
            count += 1
    print(f"Resize + CenterCrop, {count} images: the same bits")


def compare_large(ours, folder, random):
    """JPEG files that become much smaller. Saturated squares: their edges are clipped, which no scaling before it gives."""
    small = Image.fromarray(pattern(random, 125, 94))
    noisy = numpy.asarray(small.resize((2400, 1800), Image.BICUBIC)) + random.normal(0, 6, (1800, 2400, 3))
    squares = numpy.where(numpy.add.outer(numpy.arange(1800) // 5, numpy.arange(2400) // 5)[..., None] % 2,
                          (255, 0, 0), (0, 0, 255))
    for name, pixels in (("photograph", noisy), ("saturated squares", squares)):
        path = folder / f"{name.replace(' ', '-')}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).save(path, quality=92)
        image = Image.open(path).convert("RGB")
        for box, size in ((None, (224, 224)), ((101, 33, 1801, 1767), (200, 210)), (None, (64, 64))):
            off = numpy.abs(pillow_view(image, box, size, False).astype(int) - ours.view(path, box, size, False))
            print(f"JPEG of 2400 x 1800, {name}, to {size[0]} x {size[1]}: largest {off.max()}, mean {off.mean():.3f}")
            assert not off.any()


def compare_truncated(ours, folder):
    """Whatever Pillow refuses of a cut file, we refuse; the other way round only where pixels are made up."""
    for path in (folder / "420-83x59.jpg", folder / "progressive-83x59.jpg"):
        data, cut = path.read_bytes(), path.with_name("cut.jpg")
        for size in range(len(data) - 60, len(data)):
            cut.write_bytes(data[:size])
            try:
                Image.open(cut).convert("RGB")
                continue
            except OSError:
                pass
            try:
                ours.view(cut, None, None, False)
            except OSError:
                continue
            raise AssertionError(f"{path.name} cut to {size} bytes: Pillow refuses it, we do not")
        cut.unlink()


def main(decode_tool, picture_tool):
    random = numpy.random.default_rng(int(os.environ.get("APD_TEST_SEED", 1)))
    ImageFile.MAXBLOCK = 1 << 23
    ours = Ours(decode_tool)
    with tempfile.TemporaryDirectory() as name:
        jpegs, others, large = (pathlib.Path(name, folder) for folder in ("jpeg", "other", "large"))
        for folder in (jpegs, others, large):
            folder.mkdir()
        subprocess.run([picture_tool, jpegs], check=True)
        write_pngs(others, random)
        write_webps(others, random)
        found = {**{f"JPEG {kind}": entry for kind, entry in compare_views(ours, jpegs, random).items()},
                 **compare_views(ours, others, random)}
        for kind, (count, most, total) in found.items():
            print(f"{kind:32s} {count:4d} views   largest {most}, mean {total / count:.3f}")
        assert len(found) == 54 and not any(most for _, most, _ in found.values())
        if transforms:
            compare_evaluation(ours, jpegs)
        compare_large(ours, large, random)
        compare_truncated(ours, jpegs)


if __name__ == "__main__":
    main(*sys.argv[1:])
