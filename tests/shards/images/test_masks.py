import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.images.masks import decode, encode


@given(st.integers(1, 7), st.integers(1, 9), st.randoms(use_true_random=False))
def test_a_mask_comes_back(height, width, random):
    mask = np.array([random.random() < 0.5 for _ in range(height * width)]).reshape(height, width)
    assert np.array_equal(decode(encode(mask), height, width), mask)


def test_the_text_is_short():
    mask = np.zeros((3, 4), bool)
    mask[0, 1:3] = mask[1, 3] = mask[2, 0] = True
    assert encode(mask) == "1+2 7+2"


@pytest.mark.parametrize("runs", ["12+1", "3", "-1+2", "0+0", "0+99999999999", "a+b"])
def test_other_text_is_refused(runs):
    with pytest.raises(ValueError, match="no run of pixels"):
        decode(runs, 3, 4)
