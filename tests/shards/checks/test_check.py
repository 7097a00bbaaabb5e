"""shards.check finds every planted fault, once and as what it is, shows it on the page, and is silent on good data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from testing.picture_source import PictureSource, encoded, pair, picture

from shards.check import main
from shards.errors import DataError
from shards.pack import pack


def packed(folder: Path, *more, **images: bytes) -> Path:
    """Four good pairs, two of them unchanged, and the bad ones."""
    records = []
    for i in range(4):
        changed = i % 2 == 0
        text = f"the {('dog', 'cat')[i // 2]} left" if changed else "nothing changed"
        records.append(one_pair(f"p{i}", f"b{i}", f"a{i}", text, changed))
        images |= {f"b{i}": encoded(picture(i)), f"a{i}": encoded(picture(50 + i))}
    pack(PictureSource([*records, *more], images), folder)
    return folder


def one_pair(key: str, before: str, after: str, caption: str, changed: bool, split: str = "train"):
    """A pair of two images."""
    found = pair(split, key, before, after, (caption,))
    return replace(found, changed=changed, change_type="drop" if changed else "none")


def test_good_data_has_no_finding(tmp_path, capsys):
    assert main([str(packed(tmp_path / "data"))]) == 0
    said = capsys.readouterr().out
    assert "fault" not in said and "note" not in said and "data-check.html" in said
    assert "Nothing was found." in (tmp_path / "data-check.html").read_text()


PLANTED = {
    "1 pair marked unchanged, and a caption states a change": (1, ("x", "x1", "x2", "the cow left", False)),
    "1 couple of pictures packed as changed and as unchanged": (1, ("x", "b1", "a1", "the cow left", True)),
    "1 pair marked changed, with the same picture twice": (1, ("x", "x1", "x1", "the cow left", True)),
    "1 group of pictures in more than one split": (1, ("x", "b0", "x2", "the cow left", True, "test")),
    "1 caption of one word": (0, ("x", "x1", "x2", "cow", True)),
    "1 sample with a picture of a strange size": (0, ("x", "x1", "tall", "the cow left", True)),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_fault_is_found(what, tmp_path, capsys):
    code, one = PLANTED[what]
    tall = picture(9).resize((40, 900))
    images = {"x1": encoded(picture(91)), "x2": encoded(picture(92)), "tall": encoded(tall)}
    folder = packed(tmp_path / "data", one_pair(*one), **images)
    capsys.readouterr()
    assert main([str(folder), "--out", str(tmp_path / "page.html")]) == code
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("fault: ", "note: 1 "))]
    assert any(line.startswith(f"{'fault' if code else 'note'}: {what}. ") for line in lines), lines
    text = (tmp_path / "page.html").read_text()
    assert f"<h2>{what}</h2>" in text and one[3] in text and text.count("<img") >= 2
    assert code == int(any(line.startswith("fault") for line in lines))
    assert ("says that nothing changed in unknown words" in text) is ("states a change" in what)


def test_a_caption_that_never_changes_is_noted(tmp_path, capsys):
    more = [one_pair(f"x{i}", f"c{i}", f"d{i}", "The cow left.", True) for i in range(3)]
    images = {f"{side}{i}": encoded(picture(200 + 10 * i + (side == "c"))) for i in range(3) for side in "cd"}
    assert main([str(packed(tmp_path / "data", *more, **images))]) == 0
    assert "note: 3 of 5 pairs marked changed have one caption: the cow left." in capsys.readouterr().out


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(DataError, match="--out: .* cannot be written"):
        main([str(tmp_path), "--out", str(tmp_path / "none" / "page.html")])
