"""Pairs of anybody's own: every way to write the table, what is wrong in it, and splits that share no photo."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest

from shards.checks.verification import verify
from shards.errors import DataError
from shards.pack import main, pack
from shards.reading.reader import Folder
from shards.sources.layouts.splits import split_groups
from shards.sources.pairs import PairsSource

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "sources.md").read_text()
SECTION = PAGE.partition("## pairs")[2].partition("\n## ")[0]
(FROM_LIST,) = re.findall(r"```python\n(.*?)```", SECTION, re.S)


@pytest.fixture
def photos(tmp_path, write_photo) -> Path:
    """before/ and after/ with photos 1 to 4; a secret outside."""
    root = tmp_path / "photos"
    for side in ("before", "after"):
        for number in range(1, 5):
            write_photo(root / side / f"{number}.jpg")
    write_photo(tmp_path / "secret.jpg")
    return root


def rows(*captions: list[str] | None) -> list[dict]:
    """A row for each list of captions: pair 1, pair 2, ..."""
    return [
        {"before": f"before/{n}.jpg", "after": f"after/{n}.jpg", "captions": texts}
        for n, texts in enumerate(captions, 1)
    ]


def write_jsonl(root: Path, entries: list[dict], name: str = "pairs.jsonl") -> None:
    (root / name).write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def read(root: Path, **options) -> tuple[dict, PairsSource]:
    """{(before, after): record} by the photos' names without folders and endings."""
    source = PairsSource(root, **options)
    found = {}
    for record in source.records():
        found[tuple(Path(image).stem for image in record.images.values())] = record
    return found, source


TABLES = {
    "lines.jsonl": '\ufeff{"before": "before/1.jpg", "after": "after/1.jpg", "captions": ["a, b", "c"], "changed": 1}'
    '\r\n\r\n{"before": "before/2.jpg", "after": "after/2.jpg", "caption": "d", "changed": false}\r\n',
    "list.json": '[{"before": "before/1.jpg", "after": "after/1.jpg", "captions": "a, b|c", "changed": "yes"},\n'
    '{"Before": "before/2.jpg", "After": "./after/2.jpg", "Caption": "d", "changed": "no"}]',
    "comma.csv": '\ufeffbefore,after,captions,changed\r\nbefore/1.jpg,after/1.jpg,"a, b|c",1,,\r\n\r\n'
    "before/2.jpg,after/2.jpg,d,0\r\n",
    "semicolon.CSV": 'Before ;After;Changed;Captions\nbefore/1.jpg;after/1.jpg;TRUE;"[""a, b"", ""c""]"\n'
    "before\\2.jpg;after\\2.jpg;False;d\n",
    "rows.txt": "after\tbefore\tcaption\tchanged\nafter/1.jpg\tbefore/1.jpg\ta, b\t\n"
    "after/1.jpg\tbefore/1.jpg\tc\tyes\nafter/2.jpg\tbefore/2.jpg\td\tno\nafter/2.jpg\tbefore/2.jpg\td\t\n",
    "lines.csv": 'before,after,changed,captions\nbefore/1.jpg,after/1.jpg,1.0,"a,\nb|\nc"\n'
    "before/2.jpg,after/2.jpg,0.0,d",
}


@pytest.mark.parametrize("name", TABLES)
def test_all_ways_to_write_a_table_say_the_same(photos, name):
    (photos / name).write_bytes(TABLES[name].encode())
    found, source = read(photos, table=name)
    assert source.lost == [] and found.keys() == {("1", "1"), ("2", "2")}
    assert found["1", "1"].captions == ("a, b", "c") and found["2", "2"].captions == ("d",)
    assert found["1", "1"].changed is True and found["1", "1"].change_type is None
    assert found["2", "2"].changed is False and found["2", "2"].change_type == "none"


def test_pairs_are_packed_with_their_own_bytes(photos, tmp_path, capsys):
    entries = rows(["the cup has gone"], ["nothing has changed"], ["a cup was added"], ["the cup is red now"])
    for entry, split in zip(entries, ("train", "valid", "test", "train"), strict=True):
        entry |= {"split": split, "weather": "dry", "chnaged": True}
    entries[3] |= {"change_type": "color"}
    write_jsonl(photos, entries)
    out = tmp_path / "out"
    assert main(["pairs", "--root", str(photos), "--out", str(out), "--workers", "1"]) == 0
    told = capsys.readouterr()
    assert "train: 2 pair\nval: 1 pair\ntest: 1 pair" in told.out
    assert "columns that are not used: chnaged (did you mean changed?), weather" in told.err
    assert verify(out) == []
    record, members = Folder.open(out).stream("pair", "train").sample(1)
    assert record["id"] == "before/4.jpg // after/4.jpg"
    assert record["changed"] is True and record["change_type"] == "color"
    assert members["after.jpg"] == (photos / "after" / "4.jpg").read_bytes()


WRONG = {  # column -> (value, reason)
    "before": ("", "no before"),
    "after": ("after/9.jpg", "no photo"),
    "captions": ([" "], "no captions"),
    "caption": (7, "captions that are not text"),
    "changed": ("perhaps", "changed is not true, false or empty"),
    "change_type": ("none", "changed and change_type contradict each other"),
    "split": ("holdout", "split is not train, val or test"),
}


@pytest.mark.parametrize("column", WRONG)
def test_a_wrong_row_is_counted_and_listed_with_its_line(photos, column):
    value, reason = WRONG[column]
    good, bad = rows(["fine"], ["fine"])
    write_jsonl(photos, [good, bad | {"changed": True} | {column: value}])
    found, source = read(photos)
    assert found.keys() == {("1", "1")} and source.dropped == {reason: 1}
    assert source.lost[0].startswith(f"pairs.jsonl line 2: {reason}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[1, 2]", "not a JSON object"),
        ('{"before": "before/2.jpg", "after"', "not JSON"),
        ("[" * 100_000, "JSON that is nested too deep"),
        ('{"before": "before/2.jpg", "after": "after/2.jpg", "captions": ["\\ud800"]}', "not JSON"),
    ],
)
def test_lines_that_are_no_rows_are_listed(photos, line, words):
    (photos / "pairs.jsonl").write_text(json.dumps(rows(["fine"])[0]) + "\n" + line + "\n")
    found, source = read(photos)
    assert found.keys() == {("1", "1")} and source.dropped == {"a row that cannot be read": 1}
    assert source.lost == [f"pairs.jsonl line 2: a row that cannot be read ({words})"]


def test_an_unquoted_comma_is_told_with_its_remedy(photos):
    (photos / "pairs.csv").write_text(
        'before,after,captions\nbefore/1.jpg,after/1.jpg,"red,\nnow"\nbefore/2.jpg,after/2.jpg,red, now\n'
    )
    found, source = read(photos)
    assert found["1", "1"].captions == ("red, now",)
    assert len(source.lost) == 1 and "line 4" in source.lost[0] and "put quotes around" in source.lost[0]


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/hostname", "C:\\secret.jpg", "link.jpg", "before/\x00.jpg"])
def test_nothing_outside_the_folder_is_read(photos, name):
    (photos / "link.jpg").symlink_to(photos.parent / "secret.jpg")
    write_jsonl(photos, [*rows(["fine"]), {"before": "before/2.jpg", "after": name, "captions": ["x"]}])
    found, source = read(photos)
    assert found.keys() == {("1", "1")} and source.dropped == {"a photo outside the folder": 1}
    assert "line 2" in source.lost[0]


def test_a_whole_path_into_the_folder_is_a_name_in_it(photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    entries = rows(["one"], ["two"])
    for entry, root in zip(entries, (photos, tmp_path / "link"), strict=True):
        entry["before"] = f"{root}/{entry['before']}"
    write_jsonl(photos, [*entries, {"before": f"{photos}/../secret.jpg", "after": "after/1.jpg", "captions": ["x"]}])
    source = PairsSource(tmp_path / "link")
    assert [record.images["before.jpg"] for record in source.records()] == ["before/1.jpg", "before/2.jpg"]
    assert source.dropped == {"a photo outside the folder": 1}


def test_a_pipe_is_not_waited_for_and_a_page_is_no_photo(photos):
    os.mkfifo(photos / "after" / "7.jpg")
    (photos / "after" / "8.jpg").write_text("<html>not found</html>")
    entries = [{"before": "before/1.jpg", "after": f"after/{name}", "captions": ["x"]} for name in ("7.jpg", "8.jpg")]
    write_jsonl(photos, rows(["fine"]) + entries)
    assert read(photos)[1].dropped == {"no photo": 1, "no photo in a known format": 1}


def test_rows_of_a_pair_are_put_together_unless_they_contradict(photos):
    first, second = rows(["a"], ["d"])
    write_jsonl(
        photos,
        [
            first,
            second | {"changed": False},
            first | {"captions": ["b", "a"], "change_type": "Color"},
            second | {"changed": True, "captions": ["e"]},
        ],
    )
    found, source = read(photos)
    assert found["1", "1"].captions == ("a", "b")
    assert found["1", "1"].changed is True and found["1", "1"].change_type == "color"
    assert found["2", "2"].captions == ("d",) and found["2", "2"].changed is False
    assert source.lost == ["pairs.jsonl line 4: contradicts an earlier row (changed was False in line 2)"]


def test_rows_without_a_split_are_left_out_where_others_have_one(photos):
    first, second = rows(["a"], ["b"])
    write_jsonl(photos, [first | {"split": "test"}, second, first])
    found, source = read(photos)
    assert {pair: record.split for pair, record in found.items()} == {("1", "1"): "test"}
    assert source.lost == ["pairs.jsonl line 2: no split, and other rows have one"]


def test_no_photo_is_in_two_splits(tmp_path, write_photo):
    # Chains of pairs over 1, 2, 3 ... photos, and the same photo under the name of a link.
    chains = [[f"{chain}/{link}.jpg" for link in range(2 + chain % 4)] for chain in range(40)]
    for name in {name for chain in chains for name in chain}:
        write_photo(tmp_path / name)
    (tmp_path / "39" / "alias.jpg").symlink_to("0.jpg")
    chains.append(["39/alias.jpg", "38/0.jpg"])
    entries = [
        {"before": before, "after": after, "captions": ["x"]}
        for chain in chains
        for before, after in zip(chain, chain[1:], strict=False)
    ]
    write_jsonl(tmp_path, entries)
    source = PairsSource(tmp_path)
    records = source.records()
    assert len(records) == len(entries) == 101
    splits: dict[str, set[str]] = {}
    for record in records:
        for image in record.images.values():
            splits.setdefault(image, set()).add(record.split)
    assert all(len(among) == 1 for among in splits.values()) and "39/alias.jpg" not in splits
    counts = Counter(record.split for record in records)
    assert 78 <= counts["train"] <= 83 and 8 <= counts["val"] <= 11 and 8 <= counts["test"] <= 11
    write_jsonl(tmp_path, entries[::-1])
    assert {record.id: record.split for record in PairsSource(tmp_path).records()} == {
        record.id: record.split for record in records
    }


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ([1] * 10, (8, 1, 1)),
        ([1] * 1000, (800, 100, 100)),
        ([1], (1, 0, 0)),
        ([50, 50], (100, 0, 0)),  # too large to be held out
        ([1867] + [1] * 333, (1867, 167, 166)),
    ],
)
def test_shares_are_met_as_nearly_as_groups_allow(sizes, counts):
    named = {f"photo-{place}": size for place, size in enumerate(sizes)}
    found = Counter()
    for name, split in split_groups(named).items():
        found[split] += named[name]
    assert (found["train"], found["val"], found["test"]) == counts


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ({}, {}, "no .jsonl or .csv file: name the table"),
        ({"a.csv": "", "b.jsonl": ""}, {}, "has a.csv, b.jsonl: name the table"),
        ({"a.xlsx": ""}, {}, r"no .jsonl or .csv file \(save a.xlsx as CSV\): name the table"),
        ({"a.csv": "before,after,captions\n1.jpg,1.jpg,x\n"}, {}, r"no photo \(1.jpg; before/1.jpg is there\)"),
        ({"a.csv": "name,captions\n1,x\n"}, {}, r"but one with another ending \(before/1\)"),
        ({}, {"table": "no.csv"}, "no.csv is missing"),
        ({}, {"table": "../no.csv"}, "leads outside"),
        ({"a.csv": ""}, {}, "a.csv has no row that can be used. An example: before,after,captions"),
        ({"a.csv": "one,two\n1,2\n"}, {}, "line 2: no before; its columns are one, two. An example"),
        ({"a.csv": "befor,after\n1,2\n"}, {}, r"after, befor \(did you mean before\?\)"),
        ({"a.jsonl": '{"before": "before/1.jpg"}\n'}, {}, 'line 1: no after; its columns are before. .* {"before"'),
        ({"a.csv": 'before,after,captions\nx,y,"open\n\n'}, {}, "row that begins in line 2 .* check its quotes"),
        ({"a.csv": "before,after,caption,caption\n"}, {}, "'caption' comes twice in line 1"),
        ({"a.csv": "before,after,captions\nx,y,caf\udce9\n"}, {}, "a.csv is not UTF-8"),
        ({"a.json": "[1"}, {"table": "a.json"}, "a.json is not a JSON list"),
    ],
)
def test_a_table_of_which_nothing_can_be_used_ends_in_one_line(photos, tmp_path, files, options, words):
    for name, text in files.items():
        (photos / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=words) as caught:
        pack(PairsSource(photos, **options), tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_the_page_leads_from_two_folders_to_a_verified_folder(tmp_path, write_photo, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for side in ("before", "after"):
        for number in range(1, 21):
            write_photo(Path("photos") / side / f"{number:03d}.jpg")
    lines = [f'{number:03d}.jpg,"the cup, number {number}, has gone",yes' for number in range(1, 21)]
    Path("photos/captions.csv").write_text("\n".join(["name,caption,changed", *lines]))
    (command,) = re.findall(r"^python -m shards\.pack (.*)$", SECTION, re.M)
    assert main([*shlex.split(command), "--workers", "1"]) == 0
    assert "train: 16 pair\nval: 2 pair\ntest: 2 pair" in capsys.readouterr().out
    assert verify("data/photos") == []
    folder = Folder.open("data/photos")
    assert folder.manifest["dropped"] == {}
    assert folder.stream("pair", "val").metadata(0)["id"].startswith("before/0"), "of the column `name`"


def test_the_page_rewrites_a_real_list(shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = json.loads((shared_data / "cub50_pairs.json").read_bytes())[:12]
    for name in {entry[side] for entry in listed for side in ("image1", "image2")}:
        (tmp_path / "birds/images" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shared_data / "cub50/images" / name, tmp_path / "birds/images" / name)
    Path("birds/pairs.json").write_text(json.dumps(listed))
    exec(FROM_LIST, {})
    manifest = pack(PairsSource("birds"), "out")
    assert sum(split["pair"] for split in manifest["splits"].values()) == 12 and manifest["dropped"] == {}
    assert verify("out") == []
