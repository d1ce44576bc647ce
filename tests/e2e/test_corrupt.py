"""Each corruption beside another implementation (tests/oracle/corruptions.py)."""
import sys

import corrupt_tool
import numpy as np
import pytest
import support

sys.path.insert(0, str(support.ROOT / "tests" / "oracle"))
import corruptions  # noqa: E402

SHAPES = [(28, 28, 1), (32, 32, 3), (224, 224, 3), (37, 50, 3), (100, 75, 1)]
SEED, SAMPLE = 2 ** 40 + 5, 2 ** 33 + 7


@pytest.fixture(scope="module")
def tool():
    tool = corrupt_tool.Tool()
    yield tool
    tool.close()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("name", corruptions.NAMES)
def test_pixels_are_those_of_the_formulas(tool, name, shape):
    image = corrupt_tool.photograph(*shape)
    for severity in range(1, 6):
        ours = tool.run(image, name, severity, SEED, SAMPLE)[1].astype(int)
        theirs = corruptions.corrupt(image, name, severity, SEED, SAMPLE).astype(int)
        difference = np.abs(ours - theirs)
        # Equal on the machine where this was written; rounding of another libm may reach the last bit.
        assert difference.mean() <= 0.001 and difference.max() <= 1, f"severity {severity}"
