"""Words of scripts with and without spaces; metrics and packing cut alike."""

from __future__ import annotations

import pytest

from idc.metrics import segmentation as of_metrics
from shards.wording import segmentation

TEXTS = {
    "the car is gone .": "the car is gone .",
    "  It's Zoë's\tcar\n": "It's Zoë's car",
    "没有变化": "没 有 变 化",
    "右边新建了 2 座房子。": "右 边 新 建 了 2 座 房 子 。",
    "車がなくなった": "車 が な く な っ た",
    "a red房子here": "a red 房 子 here",
    "차가 없어졌다": "차가 없어졌다",  # Korean has spaces
    "รถหายไป": "ร ถ ห า ย ไ ป",
    "มีต้นไม้ใหม่": "มี ต้ น ไ ม้ ใ ห ม่",  # vowel signs and tone marks stay with their letter
    "": "",
}


@pytest.mark.parametrize("text", TEXTS)
def test_both_cut_alike(text):
    assert " ".join(segmentation.words_of(text)) == of_metrics.spaced(text) == TEXTS[text]
    assert segmentation.is_unspaced(text) == of_metrics.is_unspaced(text) == (TEXTS[text] != " ".join(text.split()))
    assert (segmentation._LETTERS, segmentation._MARKS) == (of_metrics._LETTERS, of_metrics._MARKS)
