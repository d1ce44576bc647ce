"""Every operation on images gives Pillow's bytes, on random and structured images of odd sizes."""
import numpy as np
import pytest

pytest.importorskip("torchvision", reason="python3-torchvision is not installed")

import augment_tool  # noqa: E402

SIZES = [(1, 1), (1, 9), (8, 1), (2, 2), (3, 3), (5, 4), (37, 53), (96, 61)]  # h, w
SIGNED = [x * sign for x in (0, 0.03, 0.1, 0.27, 0.45, 0.9) for sign in (1, -1)]
MAGNITUDES = {
    "Identity": [0], "AutoContrast": [0], "Equalize": [0], "Invert": [0],
    "ShearX": [x / 3 for x in SIGNED], "ShearY": [x / 3 for x in SIGNED],
    "TranslateX": [x * 50 for x in SIGNED], "TranslateY": [x * 50 for x in SIGNED],
    "Rotate": [x * 33 for x in SIGNED] + [30, 45, 90, 180, -90, 135, 270, 359, 400, -700],
    "Brightness": SIGNED + [-1, 3], "Color": SIGNED + [-1, 3], "Contrast": SIGNED + [-1, 3],
    "Sharpness": SIGNED + [-1, 3],
    "Posterize": range(9), "Solarize": [0, 1, 113.33, 127.5, 128, 178.5, 254, 255, 256],
    "Hue": [-0.5, -0.3, -0.1, -0.001, 0, 0.001, 0.05, 0.1, 0.33, 0.5],
}


def images_of(h, w, seed):
    """Images [h][w][3] and [h][w]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    noise = random.integers(0, 256, (h, w, 3))
    slope = np.stack([x * 255 // max(w - 1, 1), y * 255 // max(h - 1, 1), (x + y) * 255 // max(h + w - 2, 1)], 2)
    yield from (noise, slope, 100 + noise // 16, np.full((h, w, 3), random.integers(0, 256, 3)),
                np.repeat(255 * ((x + y) % 2)[..., None], 3, 2), 255 * (noise > 127), slope // 4 * (noise > 40))
    yield from (noise[..., 0], slope[..., 2], 30 + noise[..., 0] // 32)


@pytest.fixture(scope="module")
def tool():
    tool = augment_tool.Tool()
    yield tool
    tool.close()


@pytest.mark.parametrize("name", MAGNITUDES)
def test_operation_gives_pillows_bytes(tool, name):
    for h, w in SIZES:
        for number, image in enumerate(images_of(h, w, 100 * h + w)):
            image = image.astype(np.uint8)
            for magnitude in MAGNITUDES[name]:
                expected = np.asarray(augment_tool.peer_op(augment_tool.pillow(image), name, magnitude))
                found = tool.op(image, name, magnitude)
                assert (found == expected).all(), (f"{name} {magnitude} of image {number}, {h} x {w}: "
                                                   f"{(found != expected).sum()} bytes differ")


@pytest.mark.parametrize("turn", [-0.37, 0, 0.1])
def test_hue_of_every_colour_is_pillows(tool, turn):
    colours = np.arange(2 ** 24, dtype=np.uint32).view(np.uint8).reshape(4096, 4096, 4)[..., :3].copy()
    expected = np.asarray(augment_tool.peer_op(augment_tool.pillow(colours), "Hue", turn))
    assert (tool.op(colours, "Hue", turn) == expected).all()
