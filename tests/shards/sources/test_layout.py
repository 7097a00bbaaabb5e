"""What sources of published folders share: no file outside the root is read, and each fault is said in one line."""

from __future__ import annotations

import os

import pytest

from shards.errors import DataError
from shards.format.index import KEY
from shards.sources.layouts.layout import (
    Photos,
    entry_of,
    image_fault,
    inside,
    key_of,
    name_of,
    read_bytes,
    read_json,
    read_text,
    sentences_of,
)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "outside.jpg").write_bytes(b"\xff\xd8\xff outside")
    (tmp_path / "root-2").mkdir()  # its name begins as the root's does
    (tmp_path / "root-2" / "a.jpg").write_bytes(b"\xff\xd8\xff")
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    return folder


@pytest.mark.parametrize(
    "name", ["../outside.jpg", "a/../../outside.jpg", "/etc/passwd", "link.jpg", "../root-2/a.jpg"]
)
@pytest.mark.parametrize("read", [inside, read_bytes, image_fault])
def test_nothing_outside_the_root_is_read(root, name, read):
    with pytest.raises(DataError, match="leads outside"):
        read(root, name)


def test_links_inside_the_root_are_followed(root):
    (root / "a.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "b.jpg").symlink_to(root / "a.jpg")
    assert read_bytes(root, "b.jpg") == b"\xff\xd8\xff" and image_fault(root, "b.jpg") is None


def test_a_folder_linked_into_the_root_belongs_to_it(root, tmp_path):
    (root / "images").symlink_to(tmp_path / "root-2")
    assert read_bytes(root, "images/a.jpg") == b"\xff\xd8\xff"
    for name in ("images/../../outside.jpg", "images/../outside.jpg", "link.jpg/a.jpg"):
        with pytest.raises(DataError, match="leads outside"):
            inside(root, name)


def test_what_is_no_photo_is_told_by_content(root):
    (root / "page.jpg").write_bytes(b"<html>")
    os.mkfifo(root / "pipe.jpg")  # would be waited for
    faults = [image_fault(root, name) for name in ("page.jpg", "pipe.jpg", "missing.jpg", "x" * 300, None)]
    assert faults == ["no photo in a known format"] + ["no photo"] * 4


def test_photos_are_found_by_name_whatever_their_ending(root):
    (root / "images").mkdir()
    for name in ("1.JPG", "1_2.png", "a.b.jpeg", "a.b.gif", "3.jpg", "3.png"):
        (root / "images" / name).touch()
    (root / "1.png").touch()
    (root / "4").mkdir()
    photos = Photos(root)
    folders = ("missing", "images", ".")
    found = [photos.find(name, folders) for name in ("1", "1_2.jpg", "a.b.png", "a.b.gif", "3.png", "4", "5")]
    expected = ["images/1.JPG", "images/1_2.png", "images/a.b.jpeg", "images/a.b.gif", "images/3.png", None, None]
    assert found == expected
    assert photos.find("1", (".", "images")) == "1.png"
    with pytest.raises(DataError, match="3.jpg and 3.png for the photo '3'"):
        photos.find("3", folders)


def test_text_may_have_a_byte_order_mark_and_any_line_ends(root):
    (root / "a.tsv").write_bytes("\ufeffä\r\nb\rc\n".encode())
    (root / "a.json").write_bytes("\ufeff[1]".encode())
    assert read_text(root, "a.tsv") == "ä\nb\nc\n" and read_json(root, "a.json", list) == [1]


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", b'{"a": "\\ud800"}', b"[" * 100000, b'{"a": NaN}', b""])
def test_json_of_another_form_is_refused_by_name(root, content):
    (root / "a.json").write_bytes(content)
    with pytest.raises(DataError, match="a.json is not a JSON object") as caught:
        read_json(root, "a.json")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sentences_of("text", "x"), "x is 'text', not a list of sentences"),
        (lambda: sentences_of(["a", 5], "x"), "x, number 2, is 5, not text"),
        (lambda: entry_of([], ("a",), "x"), r"x is \[\], not an object"),
        (lambda: entry_of({"b": 1}, ("b", "a"), "x"), "x has no 'a'"),
        *[
            (lambda name=name: name_of(name, "x"), "cannot be part")
            for name in ("../a", "a\\b", "..", "", "a\nb", "\0")
        ],
        *[(lambda name=name: name_of(name, "x"), "not a name") for name in (None, True, 1.5, ["a"])],
    ],
)
def test_entries_of_another_type_are_refused_by_place(call, words):
    with pytest.raises(DataError, match=words):
        call()


def test_sentences_and_names_are_taken_as_they_are_meant():
    assert sentences_of([" a  b\n", "", "  "], "x") == ("a b",)
    assert name_of(12, "x") == "12" and name_of("a  b.jpg", "x") == "a  b.jpg"


def test_keys_are_allowed_readable_and_differ_where_names_do():
    names = ["train-76", "train-a b", "train-a-b", "train-a.b", "ä", "-", "." * 300, "x" * 80, "x" * 81]
    keys = [key_of(name) for name in names]
    assert keys[0] == "train-76" and keys[1].startswith("train-a-b-") and keys[7] == "x" * 80
    assert all(KEY.fullmatch(key) for key in keys) and len(set(keys)) == len(names)
