"""shards.show writes one valid page with nothing from elsewhere, whatever the folder's texts and images are."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from testing.picture_source import PictureSource, encoded, pair, photo, picture

from shards.check import main as audit_main
from shards.checks.contact_sheet import show
from shards.errors import DataError
from shards.format import manifest
from shards.format.arrays import encode_array
from shards.format.record import Record
from shards.format.tars import write_shard
from shards.pack import pack
from shards.show import main

ROOT = Path(__file__).resolve().parents[3]
VOID = {"meta", "img", "br", "hr", "link", "input", "rect", "line"}


class Page(HTMLParser):
    """Elements properly nested, or an AssertionError; keeps text, tags and the sources of images."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.images: list[Image.Image] = []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            assert name not in ("onclick", "onload", "onerror", "href", "srcset", "action"), name
            if name == "src":
                head, data = value.split(",", 1)
                assert head == "data:image/jpeg;base64"
                self.images.append(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)


def test_the_page_shows_samples_of_every_kind_and_what_the_folder_holds(packed):
    text = show(packed, count=3)
    page = Page(text)
    assert "script" not in page.tags and not re.search(r"url\(|@import|https?:", text)
    assert page.tags.count("article") == 3 * 3 + 3 + 2 + 2 + 3  # val and test have two photos each
    assert len(page.images) == 3 * 3 * 2 + 3 + 2 + 2 + 3
    for words in ("pairs 20 4 4", "captions 50 10 10", "color 10 2 2", "none 10 2 2", "28 pairs", "50% of pairs"):
        assert words in page.text, words
    for words in (
        "3 of 20 pairs of train",
        "2 of 2 photos of test",
        "3 of 10 class photos of train",
        "Nothing was left out",
    ):
        assert words in page.text, words


def test_a_card_has_images_captions_negatives_and_labels(tmp_path):
    images = {"big": encoded(picture(1, 900, 600)), "tall": encoded(picture(2, 40, 400), "PNG")}
    records = [
        pair("train", "a", "big", "tall", ("the dog left", "a dog has gone")),
        Record("pair", "train", "b", {"before.jpg": "tall", "after.jpg": "big"}, "b", ("nothing",), False, "none"),
        Record("pair", "train", "c", {"before.jpg": "tall", "after.jpg": "big"}, "the c", ("odd",), None, None),
        Record("class", "train", "k", {"photo.jpg": "tall"}, "k", class_id=1, class_name="gull"),
    ]
    pack(PictureSource(records, images, ("tern", "gull")), tmp_path / "data", negatives=2)
    page = Page(show(tmp_path / "data"))
    assert [image.size for image in page.images[:2]] == [(320, 213), (32, 320)]
    for words in (
        "the dog left a dog has gone",
        "changed move",
        "a · source/a",
        "unchanged nothing",
        "not known whether",
    ):
        assert words in page.text, words
    assert "gull class 1 · k" in page.text and "retrieve" in page.text
    assert page.text.count("before after") == 3


def test_texts_are_escaped_and_cannot_break_the_page(tmp_path):
    nasty = '<script>alert("1")</script><img src=x onerror=y> & \x00\x1b[31m \u202e ]]> --> café 変化'
    record = {"kind": "photo", "source": "<b>s", "id": nasty, "captions": [nasty],
              "negatives": {"retrieve": [nasty], "replace": [], "confuse": []}}  # fmt: skip
    pack(PictureSource([photo("test", "p")], {"p": encoded(picture(1))}), tmp_path / "data")
    contents = manifest.read(tmp_path / "data")
    members = {"photo.jpg": encoded(picture(1)), "json": manifest.encode(record)}
    entry = write_shard(tmp_path / "data", "photos-test-000000.tar", [("p", members)])
    entry |= {"kind": "photo", "split": "test"}
    manifest.write(tmp_path / "data", contents | {"shards": [entry], "source": "<b>s", "dropped": {nasty[:30]: 2}})
    assert main([str(tmp_path / "data"), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and page.tags.count("img") == 1
    assert '<script>alert("1")</script><img src=x onerror=y>' in page.text and "café 変化" in page.text
    assert "\x00" not in text and "\x1b" not in text


def test_folders_without_captions_or_training_data_are_shown(tmp_path):
    images = {"x": encoded(picture(1))}
    bare = [Record("class", "train", "k", {"photo.jpg": "x"}, "k", class_id=0, class_name="tern")]
    pack(PictureSource(bare, images, ("tern",)), tmp_path / "bare")
    page = Page(show(tmp_path / "bare"))
    assert "none tokenizer" in page.text and "Caption length" not in page.text and "tern" in page.text
    records = [Record("pair", "test", "p", {"before.jpg": "x", "after.jpg": "x"}, "p", ("it is the same",))]
    pack(PictureSource(records, images), tmp_path / "test_only")
    page = Page(show(tmp_path / "test_only"))
    assert "1 of 1 pairs of test" in page.text and "Caption length in words: median 4, longest 4" in page.text


def test_the_draw_is_seeded_and_the_choice_of_split_and_kind_kept(packed):
    assert show(packed, "train", "pair", 2, 7) == show(packed, "train", "pair", 2, 7)
    assert show(packed, "train", "pair", 2, 7) != show(packed, "train", "pair", 2, 8)
    page = Page(show(packed, "train", "pair", 2))
    assert page.tags.count("article") == 2 and "class photos of" not in page.text


def test_the_page_goes_beside_the_folder(copied, capsys):
    assert main([str(copied), "--kind", "photo", "--count", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{copied.parent / 'copy.html'}: 0.0 MiB")
    assert sorted(path.name for path in copied.parent.iterdir()) == ["copy", "copy.html"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kind", "class", "--split", "val"], "no samples for --kind class --split val: it holds 20 pairs of train"),
        (["--count", "0"], "--count is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--out", "/nowhere/at/all/page.html"], "--out: /nowhere/at/all/page.html cannot be written"),
        (["--out", "."], "--out: . cannot be written"),
        (["--kinds", "pair"], "did you mean --kind"),
    ],
)
def test_wrong_options_end_in_one_line(packed, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=words):
        main([str(packed), *arguments])
    assert list(tmp_path.iterdir()) == [] and not packed.with_suffix(".html").exists()


def test_feature_folders_and_damaged_samples_are_refused_in_one_line(copied, tmp_path):
    tar = copied / "photos-val-000000.tar"
    tar.write_bytes(tar.read_bytes().replace(b"JFIF", b"JFIX", 1))
    command = [sys.executable, "-m", "shards.show", str(copied)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 2 and "crc32c" in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr
    contents = manifest.read(copied)
    features = tmp_path / "features"
    features.mkdir()
    array = encode_array(np.ones((4, 3), np.float16))
    entry = write_shard(features, tar.name, [("a", {"photo.npy": array})]) | {"kind": "photo", "split": "val"}
    del contents["tokenizer"], contents["text"]
    counts = manifest.count_splits([entry])
    manifest.write(features, contents | {"shards": [entry], "splits": counts, "features": {"dim": 3}})
    with pytest.raises(DataError, match="holds features, which cannot be seen"):
        show(features)


def test_the_commands_of_the_data_page_run(packed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "data.md").read_text()
    commands = re.findall(r"^python -m shards\.(check|show) (.*)$", page, re.M)
    commands = [(name, arguments) for name, arguments in commands if "data/pairs" not in arguments]
    assert [name for name, _ in commands] == ["check", "check", "show", "show"]
    pack(PictureSource([photo("train", "a")], {"a": encoded(picture(1))}), tmp_path / "data" / "clevr_change")
    shutil.copytree(packed, tmp_path / "data" / "blocks")
    for name, arguments in commands:
        code = {"check": audit_main, "show": main}[name](arguments.split())
        assert code == (1 if name == "check" else 0), arguments  # the tiny pictures do leak
    assert {path.name for path in tmp_path.rglob("*.html")} == {"blocks.html", "blocks-test.html", "blocks-check.html"}
