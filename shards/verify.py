"""python -m shards.verify DIR: is the folder, byte for byte, what its manifest says?

One line a finding, naming the file and the member, and exit code 1; a summary and 0 where all is well; 2 where DIR is
no finished shard folder at all.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from shards import index, manifest
from shards.arrays import decode_array
from shards.errors import DataError, Parser, run_main
from shards.images import sniff
from shards.tars import MEMBER, PARTIAL, crc32c, file_sha256

ROLES = {"pair": {"before", "after"}, "photo": {"photo"}, "class": {"photo"}}
NEGATIVES = {"retrieve", "replace", "confuse"}


def verify(folder: str | Path) -> list[str]:
    """All findings about a shard folder, one line each; empty where all is well. DataError where it is none."""
    folder = Path(folder)
    contents = manifest.read(folder)
    findings = list(_check_folder(folder, contents))
    keys: dict[str, str] = {}
    for shard in contents["shards"]:
        findings += _Shard(folder, shard, contents).check(keys)
    return findings


def _check_folder(folder: Path, contents: dict) -> Iterator[str]:
    """What can be said without opening a tar: files beside the shards, sums of counts, the tokenizer."""
    known = {manifest.FILE} | {shard["name"] for shard in contents["shards"]}
    known |= {index.path_of(folder / shard["name"]).name for shard in contents["shards"]}
    tokenizer = contents.get("tokenizer")
    if tokenizer is not None:
        known.add(tokenizer["file"])
        path = folder / tokenizer["file"]
        if not path.is_file():
            yield f"{path}: missing, and the manifest names it as the tokenizer"
        elif file_sha256(path) != tokenizer["sha256"]:
            yield f"{path}: sha256 differs from the manifest"
    for path in sorted(folder.iterdir()):
        if path.name not in known and path.name.endswith((".tar", index.ENDING, PARTIAL)):
            yield f"{path}: not in the manifest"
    counted = manifest.count_splits(contents["shards"])
    for split in manifest.SPLITS:
        for kind in manifest.KINDS:
            stated = contents["splits"].get(split, {}).get(kind, 0)
            if stated != counted[split][kind]:
                yield (
                    f"{folder / manifest.FILE}: 'splits' says {stated} samples of {kind} in {split}, "
                    f"its shards add up to {counted[split][kind]}"
                )


class _Shard:
    """One tar and its index, checked against each other and the manifest."""

    def __init__(self, folder: Path, entry: dict, contents: dict) -> None:
        self.tar = folder / entry["name"]
        self.entry = entry
        self.contents = contents
        self.findings: list[str] = []

    def check(self, keys: dict[str, str]) -> list[str]:
        """The findings. `keys` maps the sample keys seen so far to their tar, over the whole folder."""
        if not self.tar.is_file():
            return [f"{self.tar}: missing, and the manifest lists it"]
        size = self.tar.stat().st_size
        if size != self.entry["bytes"]:
            self.findings.append(f"{self.tar}: {size} bytes, the manifest says {self.entry['bytes']}")
        rows = self._rows()
        samples = self._walk(size, rows)
        if rows is not None:
            self._compare(rows, samples)
        if len(samples) != self.entry["samples"]:
            self.findings.append(f"{self.tar}: {len(samples)} samples, the manifest says {self.entry['samples']}")
        for key, members in samples.items():
            if key in keys:
                self.findings.append(f"{self.tar}: sample {key} is also in {keys[key]}")
            keys.setdefault(key, self.entry["name"])
            self._check_sample(key, members)
        if not self.findings and file_sha256(self.tar) != self.entry["sha256"]:
            self.findings.append(
                f"{self.tar}: sha256 differs from the manifest though every member is whole: a tar header or padding "
                f"was changed, or the tar, its index and not the manifest were replaced"
            )
        return self.findings

    def _rows(self) -> list[index.Row] | None:
        path = index.path_of(self.tar)
        if not path.is_file():
            self.findings.append(f"{path}: missing")
            return None
        if file_sha256(path) != self.entry["index_sha256"]:
            self.findings.append(f"{path}: sha256 differs from the manifest")
        try:
            return index.parse(path.read_bytes(), path)
        except DataError as error:
            self.findings.append(str(error))
            return None

    def _walk(self, size: int, rows: list[index.Row] | None) -> dict[str, dict[str, tuple[int, bytes]]]:
        """The samples by the tar's own headers: key -> suffix -> (data offset, bytes). Notes what is wrong."""
        samples: dict[str, dict[str, tuple[int, bytes]]] = {}
        end = 0
        with open(self.tar, "rb") as file:
            try:
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    for member in tar:
                        end = member.offset_data + (member.size + 511) // 512 * 512
                        name = ascii(member.name)[1:-1]
                        if not member.isreg() or not MEMBER.fullmatch(member.name):
                            self.findings.append(f"{self.tar}: member {name} is not a plain KEY.NAME file")
                            continue
                        if member.offset_data + member.size > size:
                            self.findings.append(f"{self.tar}: cut short inside member {name}")
                            break
                        place = file.tell()
                        file.seek(member.offset_data)
                        data = file.read(member.size)
                        file.seek(place)
                        key, _, suffix = member.name.partition(".")
                        if suffix in samples.setdefault(key, {}):
                            self.findings.append(f"{self.tar}: member {name} comes twice")
                        samples[key][suffix] = (member.offset_data, data)
            except (tarfile.TarError, OSError, ValueError) as error:
                self.findings.append(f"{self.tar}: not readable as a tar after byte {end} ({error})")
            else:
                file.seek(min(end, size))
                if any(file.read()) or size < end + 1024:
                    self.findings.append(f"{self.tar}: the tar's list of members breaks off at byte {end}")
        return samples

    def _compare(self, rows: list[index.Row], samples: dict[str, dict[str, tuple[int, bytes]]]) -> None:
        """The index against the tar, member by member."""
        found = {f"{key}.{suffix}": member for key, members in samples.items() for suffix, member in members.items()}
        for row in rows:
            member = found.pop(row.name, None)
            if member is None:
                self.findings.append(f"{self.tar}: member {row.name} is in the index and not in the tar")
            elif (member[0], len(member[1])) != (row.offset, row.length):
                self.findings.append(
                    f"{self.tar}: member {row.name} is {len(member[1])} bytes at {member[0]}, the index says "
                    f"{row.length} at {row.offset}"
                )
            elif crc32c(member[1]) != row.crc32c:
                self.findings.append(f"{self.tar}: member {row.name}: crc32c differs from the index")
        self.findings += [f"{self.tar}: member {name} is in the tar and not in the index" for name in found]

    def _check_sample(self, key: str, members: dict[str, tuple[int, bytes]]) -> None:
        """Whether a sample has the members its kind and folder ask for, and they hold what their names say."""
        roles = ROLES[self.entry["kind"]]
        is_features = "features" in self.contents
        have: set[str] = set()
        for suffix, (_, data) in members.items():
            name = f"{self.tar}: member {key}.{suffix}"
            role, _, ending = suffix.partition(".")
            if suffix == "json" and not is_features:
                self.findings += [f"{name}: {fault}" for fault in self._faults(data)]
            elif ending == "npy" and is_features:
                try:
                    decode_array(data)
                except DataError as error:
                    self.findings.append(f"{name}: {error}")
            elif ending in ("jpg", "png") and not is_features:
                if sniff(data) != ending:
                    self.findings.append(f"{name}: does not begin as a {ending} file does")
            else:
                self.findings.append(f"{name}: does not belong in this folder")
                continue
            have.add(role)
        wanted = roles if is_features else roles | {"json"}
        self.findings += [f"{self.tar}: sample {key} has no {role}" for role in sorted(wanted - have)]
        self.findings += [f"{self.tar}: sample {key} has a {role} too many" for role in sorted(have - wanted)]

    def _faults(self, data: bytes) -> Iterator[str]:
        """What is wrong with a sample's json."""
        try:
            sample: Any = json.loads(data)
        except (ValueError, RecursionError):
            yield "not JSON"
            return
        if not isinstance(sample, dict):
            yield "not a JSON object"
            return
        kind = self.entry["kind"]
        if sample.get("kind") != kind:
            yield f"'kind' is {sample.get('kind')!r} in a shard of {kind}"
        for field in ("source", "id"):
            if not isinstance(sample.get(field), str):
                yield f"{field!r} is not text"
        if kind == "class":
            number, classes = sample.get("class_id"), self.contents["classes"]
            if not isinstance(number, int) or not 0 <= number < len(classes):
                yield f"'class_id' is {number!r} and the manifest has {len(classes)} classes"
            elif sample.get("class_name") != classes[number]:
                yield f"'class_name' is {sample.get('class_name')!r}, class {number} is {classes[number]!r}"
            return
        if not _is_texts(sample.get("captions")):
            yield "'captions' is not a list of text"
        negatives = sample.get("negatives")
        known = isinstance(negatives, dict) and set(negatives) == NEGATIVES
        if not known or not all(map(_is_texts, negatives.values())):
            yield f"'negatives' is not {', '.join(sorted(NEGATIVES))} with lists of text"
        if kind == "pair" and not (sample.get("changed") is None or isinstance(sample["changed"], bool)):
            yield "'changed' is not true, false or null"


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = Parser(prog="shards.verify", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("folder", metavar="DIR", help="a folder made by shards.pack or cluster.features")
    folder = Path(parser.parse_args(arguments).folder)
    findings = verify(folder)
    for finding in findings:
        print(finding)
    if findings:
        return 1
    contents = manifest.read(folder)
    samples = sum(shard["samples"] for shard in contents["shards"])
    size = sum(shard["bytes"] for shard in contents["shards"])
    shards = len(contents["shards"])
    print(f"{folder}: {samples} samples in {shards} shards, {size / 2**20:.1f} MiB, every byte as packed")
    return 0


if __name__ == "__main__":
    run_main(main)
