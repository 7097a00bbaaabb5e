"""Birds-to-Words: the table of 11 columns with some of its photos, and tables of another form."""

from __future__ import annotations

import json

import pytest

from shards.errors import DataError
from shards.pack import pack
from shards.sources import make_source
from shards.sources.birds_to_words import COLUMNS, BirdsToWordsSource

FILE = "birds-to-words-v1.0.tsv"


def row(first: int, second: int, split: str, number: int, text: str, ending: str = "large.jpg?1545") -> list[str]:
    """A row as in the published table."""
    bird = ("https://www.inaturalist.org/observations/1", "https://static.inaturalist.org/photos/{}/{}", "Ara ararauna")
    one, two = ([bird[0], bird[1].format(photo, ending), bird[2], "visual"] for photo in (first, second))
    return [*one, *two, split, str(number), text]


ROWS = [
    row(11, 22, "train", 1, "Animal 1 is larger.  Animal 2 has a long tail."),
    row(33, 44, "train", 1, '"Animal 1 looks ""fat"" beside animal 2."', "medium.jpeg"),
    row(11, 22, "train", 2, "Animal 2 is darker."),
    row(22, 11, "test", 1, '"big" and "small"', "original"),
    row(11, 99, "test", 1, "Its photo has been taken down."),
    row(11, 33, "val", 1, ""),
]


def write_table(root, rows, name: str = FILE, ends: str = "\n") -> None:
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(ends.join("\t".join(cells) for cells in rows).encode() + ends.encode())


@pytest.fixture
def root(tmp_path, write_photo):
    folder = tmp_path / "root"
    write_table(folder, ROWS)
    for name, form in (("11.jpg", "JPEG"), ("22.PNG", "PNG"), ("33.jpeg", "JPEG"), ("44.jpg", "PNG")):
        write_photo(folder / "images" / name, form)
    return folder


def test_the_table_is_packed(root, pack_root):
    folder, said = pack_root("birds_to_words", root)
    assert "train: 2 pair" in said
    assert folder.manifest["dropped"] == {"no photo": 1, "no captions": 1}
    stream = folder.stream("pair", "train")
    record, members = stream.sample(stream.find("train-11_22"))
    assert record["id"] == "11_22" and record["changed"] is None
    assert record["captions"] == ["Animal 1 is larger. Animal 2 has a long tail.", "Animal 2 is darker."]
    assert members["before.jpg"] == (root / "images" / "11.jpg").read_bytes()
    assert members["after.png"] == (root / "images" / "22.PNG").read_bytes()
    assert stream.metadata(1)["captions"] == ['Animal 1 looks "fat" beside animal 2.']
    assert folder.stream("pair", "test").metadata(0)["captions"] == ['"big" and "small"']


def test_a_tab_in_a_paragraph_does_not_end_it(root):
    write_table(root, [row(11, 22, "train", 1, "Animal 2\tis\tdarker.")])
    (record,) = BirdsToWordsSource(root).records()
    assert record.captions == ("Animal 2 is darker.",)


def test_photos_that_came_later_are_not_passed_over_in_silence(root, tmp_path, write_photo):
    pack(BirdsToWordsSource(root), tmp_path / "out")
    write_photo(root / "images" / "99.jpg")
    with pytest.raises(DataError, match="photos_sha256"):
        pack(BirdsToWordsSource(root), tmp_path / "out")
    manifest = pack(BirdsToWordsSource(root), tmp_path / "new")
    assert manifest["splits"]["test"]["pair"] == 2 and manifest["dropped"] == {"no captions": 1}


def test_pairs_without_photos_and_bad_rows_are_named(root):
    bad = [["a", "b"], row(1, 2, "night", 1, "a"), [cell.replace("/photos/", "/p/") for cell in ROWS[0]]]
    write_table(root, ROWS + bad)
    source = BirdsToWordsSource(root)
    source.records()
    assert source.lost == [
        f"{FILE} line 7: a row of fewer than 11 columns",
        f"{FILE} line 8: a row whose split is not train, val or test",
        f"{FILE} line 9: a row without the address of a photo (.../photos/ID/...)",
        "val 11_33: no captions",
        "test 11_99: no photo (99)",
    ]
    assert sum(source.dropped.values()) == 5


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("order", [COLUMNS, COLUMNS[::-1]])
def test_column_names_line_ends_and_the_file_name_make_no_difference(root, order, ends):
    expected = BirdsToWordsSource(root).records()
    (root / FILE).unlink()
    rows = [[dict(zip(COLUMNS, cells, strict=True))[column] for column in order] for cells in ROWS]
    write_table(root, [["\ufeff" + order[0], *order[1:]], *rows, []], "birds.TSV", ends)
    assert BirdsToWordsSource(root).records() == expected


def test_real_paragraphs_are_kept_word_for_word(shared_data, tmp_path, write_photo):
    texts = json.loads((shared_data / "text" / "birds_to_words_test_text.json").read_text())
    rows = [
        row(*(int(photo) for photo in name.split("_")), "test", number, text)
        for name, paragraphs in texts.items()
        for number, text in enumerate(paragraphs, start=1)
    ]
    write_table(tmp_path / "root", rows)
    kept = list(texts)[:3]
    for photo in {photo for name in kept for photo in name.split("_")}:
        write_photo(tmp_path / "root" / "photos" / f"{photo}.jpg")
    source = BirdsToWordsSource(tmp_path / "root")
    found = {record.id: list(record.captions) for record in source.records()}
    assert found == {name: [" ".join(text.split()) for text in texts[name]] for name in kept}
    assert len(source.lost) == source.dropped["no photo"] == len(texts) - 3


def test_folders_of_another_form_end_in_one_line(root, tmp_path):
    (root / FILE).write_text("name,text\na,b\n")
    with pytest.raises(DataError, match=f"the first of 2 left out: {FILE} line 1: a row of fewer than 11 columns"):
        pack(make_source("birds_to_words", root), tmp_path / "out")
    (root / FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=f"{FILE} is not UTF-8 text at byte 0"):
        pack(make_source("birds_to_words", root), tmp_path / "out")
    (root / FILE).rename(root / "a.tsv")
    write_table(root, ROWS, "b.tsv")
    with pytest.raises(DataError, match="has a.tsv, b.tsv: --root must be"):
        make_source("birds_to_words", root)
    with pytest.raises(DataError, match=r"has no \*.tsv"):
        make_source("birds_to_words", root / "images")
