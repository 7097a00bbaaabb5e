"""Checkpoints of the reference implementation: files as its programs write them in, model folders out, and back."""

from __future__ import annotations

import json
import re
import shlex
from collections import OrderedDict, defaultdict
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from idc.backbone.backbone import Backbone
from idc.captioner import Captioner
from idc.captioning import model_folder
from idc.captioning.tokenizer import SPECIAL
from idc.reference.__main__ import main as command
from shards.packing.tokenizer import train_tokenizer

PAGE = Path(__file__).parents[3] / "docs" / "reference.md"
PARITY = Path(__file__).parents[2] / "data" / "parity_seed0.npz"
SIZE = (48, 64)
TEXTS = ["the red cube has disappeared", "the blue ball moved to the left", "there is no change"]
# What the command cannot read off the file: the small models of these tests see another backbone.
BESIDE = "--heads 2 --max-length 9 --backbone efficientnet_lite0 --size 48 64 --strides 8 16".split()
FINETUNED, PRETRAINED = "finetuned", "pretrained"


@pytest.fixture(scope="module")
def backbone():
    return Backbone(size=SIZE)


@pytest.fixture
def make_folder(tmp_path, make_model, backbone):
    """make_folder(kind="words", **fields) -> a model folder of a small network over a real backbone."""

    def make(kind: str = "words", **fields: object) -> Path:
        entry = train_tokenizer(TEXTS, tmp_path, kind)
        sizes = {"vocab_size": entry["size"], "feature_dim": backbone.dim, "grid": backbone.grid}
        model = make_model(**({"caption_loss": "masked", "mask_padding": False} | sizes | fields))
        path, decoding = tmp_path / entry["file"], model_folder.Decoding(beam=1)
        return model_folder.save(
            tmp_path / "ours", model.config, model.state_dict(), path, backbone.describe(), decoding
        )

    return make


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)) for _ in range(2)]


def run(*arguments: object) -> int:
    return command([str(argument) for argument in arguments])


def exported(folder: Path, form: str = FINETUNED) -> tuple[Path, Path]:
    """(checkpoint, vocabulary) of a model folder."""
    checkpoint, vocabulary = folder.parent / f"{form}.pt", folder.parent / f"{form}.json"
    assert run("--export", folder, "--out", checkpoint, "--vocabulary", vocabulary, "--form", form) == 0
    return checkpoint, vocabulary


def imported(checkpoint: Path, vocabulary: Path, name: str = "imported") -> Path:
    out = checkpoint.parent / name
    assert run("--import", checkpoint, "--vocabulary", vocabulary, "--out", out, *BESIDE) == 0
    return out


def names_in_the_parity_file(stage: str) -> set[str]:
    """The names of the weights that the reference's own model of a stage has, its position table aside."""
    with np.load(PARITY) as arrays:
        prefix = f"{stage}/weights/"
        return {name.removeprefix(prefix) for name in arrays.files if name.startswith(prefix)} - {
            "position_encoding.pe"
        }


@pytest.mark.parametrize(
    ("form", "lost"), [(FINETUNED, ("regression.", "class_head.", "match_head.")), (PRETRAINED, ("changed_head.",))]
)
def test_there_and_back_every_weight_is_the_same_bit_by_bit(make_folder, form, lost):
    ours = make_folder()
    back = imported(*exported(ours, form))
    before, after = model_folder.load(ours), model_folder.load(back)
    tied = "regression.weight"  # the feature projection's own
    kept = {name for name in before.model.state_dict() if not name.startswith(lost) or name == tied}
    weights = after.model.state_dict()
    for name, weight in before.model.state_dict().items():
        if name in kept:
            assert torch.equal(weights[name], weight), name
    assert after.tokenizer.path.read_bytes() == before.tokenizer.path.read_bytes()
    assert (after.backbone, after.decoding) == (before.backbone, before.decoding)
    fields = {"classes"} if form == FINETUNED else set()
    differing = {
        name for name, value in before.model.config.to_dict().items() if after.model.config.to_dict()[name] != value
    }
    assert differing <= fields | {"dropout", "attention_dropout"}


def test_the_captions_stay_the_same(make_folder, pair):
    ours = make_folder()
    back = imported(*exported(ours))
    expected = Captioner.load(ours).caption(*pair, beam=3)
    found = Captioner.load(back).caption(*pair, beam=3)
    assert found.alternatives == expected.alternatives and len(found.alternatives) > 1
    assert found.changed_probability == expected.changed_probability != 0.5


@pytest.mark.parametrize(("form", "stage"), [(FINETUNED, "finetune"), (PRETRAINED, "classify")])
def test_a_file_has_exactly_the_weights_that_the_reference_loads(make_folder, form, stage):
    checkpoint, vocabulary = exported(make_folder(), form)
    content = torch.load(checkpoint, weights_only=True)
    weights = content if form == FINETUNED else content["model_state_dict"]
    assert weights["position_encoding.pe"].shape == (1, 200, 16)
    # Its pre-training head over three vectors, which no loss uses, is not ours to give.
    known = {name for name in names_in_the_parity_file(stage) if form == FINETUNED or not name.startswith("pooler.")}
    assert set(weights) - {"position_encoding.pe"} == known
    ids = json.loads(vocabulary.read_text())
    assert [word for word, token in ids.items() if token < 6] == [word.upper() for word in SPECIAL]
    again = torch.load(exported(imported(checkpoint, vocabulary, "again/model"), form)[0], weights_only=True)
    again = again if form == FINETUNED else again["model_state_dict"]
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())


def test_a_pretraining_file_as_the_reference_writes_it(make_folder, tmp_path, pair):
    """Counts in a defaultdict, names of a model on several GPUs, a head over three vectors."""
    ours = make_folder(classes=4)
    checkpoint, vocabulary = exported(ours, PRETRAINED)
    weights = torch.load(checkpoint, weights_only=True)["model_state_dict"]
    weights |= {"pooler.0.weight": torch.ones(2, 48), "pooler.0.bias": torch.ones(2)}
    counts = defaultdict(int)
    counts["mlm"] += 7
    content = {
        "global_step": 60000,
        "model_state_dict": OrderedDict((f"module.{name}", weight) for name, weight in weights.items()),
        "task_batch_num": counts,
    }
    torch.save(content, tmp_path / "checkpoint_60000.pt")
    out = model_folder.load(imported(tmp_path / "checkpoint_60000.pt", vocabulary))
    assert out.about == {"imported": "checkpoint_60000.pt", "untrained": ["changed head"]}
    assert out.model.config.classes == 4
    for name, weight in model_folder.load(ours).model.state_dict().items():
        assert name.startswith("changed_head.") or torch.equal(out.model.state_dict()[name], weight), name
    assert Captioner.load(tmp_path / "imported").caption(*pair).changed_probability == 0.5, "it was never taught"


def test_a_file_for_birds_has_no_changed_head(make_folder, tmp_path, pair):
    ours = make_folder()
    checkpoint, vocabulary = exported(ours)
    weights = torch.load(checkpoint, weights_only=True)
    torch.save({name: weight for name, weight in weights.items() if "pooler" not in name}, tmp_path / "birds.pt")
    out = imported(tmp_path / "birds.pt", vocabulary)
    assert model_folder.load(out).about["untrained"] == ["feature head", "changed head"]
    said = [Captioner.load(folder).caption(*pair, beam=2, length_penalty=0.0).alternatives for folder in (out, ours)]
    assert said[0] == said[1] and len(said[0]) == 2


class Object:
    """Anything that is no tensor."""


def change(**weights: torch.Tensor | None):
    """What replaces (None: removes) weights of a file; '__' stands for a dot."""

    def apply(content: dict) -> dict:
        changed = content | {name.replace("__", "."): weight for name, weight in weights.items()}
        return {name: weight for name, weight in changed.items() if weight is not None}

    return apply


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda content: content | {"config": Object()}, "never unpickled"),
        (lambda content: [1, 2], "holds a list and no named tensors"),
        (change(word_embedding__weight=None), "has no weight word_embedding.weight: it is no checkpoint"),
        (change(output_layer__bias=None), "has no weight output_layer.bias"),
        (change(encoder__norm__a_2=torch.ones(3)), "encoder.norm.a_2 has shape"),
        (change(img_project__0__weight=torch.ones(3)), "img_project.0.weight has shape"),
        (change(img_project__0__weight=torch.ones(16, 7)), "features of 7 channels and the backbone"),
        (change(position_encoding__pe=torch.ones(1, 200, 16)), "position_encoding.pe is not the sinusoid"),
        (change(single_img_encoder__layers__1__attn__out__bias=torch.ones(16)), "no place for the weight single_img"),
        (change(word_embedding__weight=torch.ones(7, 16)), "it is the vocabulary of another model"),
        (change(pooler__0__weight=None), "has no weight pooler.0.weight"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(make_folder, tmp_path, capsys, edit, words):
    checkpoint, vocabulary = exported(make_folder())
    bad, out = tmp_path / "bad.pt", tmp_path / "out"
    torch.save(edit(torch.load(checkpoint, weights_only=True)), bad)
    capsys.readouterr()
    assert run("--import", bad, "--vocabulary", vocabulary, "--out", out, *BESIDE) == 2
    said = capsys.readouterr().err
    assert words in said and "bad.pt" in said and said.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not a JSON object of words and their ids"),
        ('{"<PAD>": 0, "<BOS>": 2}', "is not a JSON object of words and their ids"),
        ('{"<BOS>": 0, "<PAD>": 1, "<EOS>": 2, "<UNK>": 3, "<CLS>": 4, "<MASK>": 5}', "ids 0 to 5 must be <PAD> <BOS>"),
        (None, "cannot be read"),
    ],
)
def test_vocabularies_that_cannot_be_used_are_one_line(make_folder, tmp_path, capsys, text, words):
    checkpoint, _ = exported(make_folder())
    if text is not None:
        (tmp_path / "dict.json").write_text(text)
    capsys.readouterr()
    command = ("--import", checkpoint, "--vocabulary", tmp_path / "dict.json", "--out", tmp_path / "out", *BESIDE)
    assert run(*command) == 2
    said = capsys.readouterr().err
    assert words in said and "dict.json" in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"caption_loss": "causal"}, "its caption_loss is 'causal' and the reference knows 'masked' alone"),
        ({"final_norm": True}, "its final_norm is True"),
        ({"kind": "sentencepiece"}, "its tokenizer is sentencepiece"),
        (None, "no such folder"),
    ],
)
def test_models_that_the_reference_has_no_place_for(make_folder, tmp_path, capsys, fields, words):
    folder = tmp_path / "nowhere" if fields is None else make_folder(**fields)
    assert run("--export", folder, "--out", tmp_path / "x.pt", "--vocabulary", tmp_path / "x.json") == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not (tmp_path / "x.pt").exists() and not (tmp_path / "x.json").exists()


def test_a_file_that_cannot_be_written_leaves_nothing(make_folder, tmp_path, capsys):
    out, vocabulary = tmp_path / "no" / "such" / "x.pt", tmp_path / "x.json"
    assert run("--export", make_folder(), "--out", out, "--vocabulary", vocabulary) == 2
    said = capsys.readouterr().err
    assert "x.pt" in said and said.count("\n") == 1 and not vocabulary.exists()


@pytest.mark.parametrize("line", re.findall(r"^python -m idc\.reference (--.+)$", PAGE.read_text(), re.M))
def test_the_commands_of_the_page_lack_nothing_but_their_files(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*shlex.split(line)) == 2
    assert re.search("no such (weight file|folder)", capsys.readouterr().err)


def test_the_page_names_the_file_of_numbers_and_all_its_keys():
    page = PAGE.read_text()
    assert f"\npython -m idc.reference {PARITY.relative_to(PAGE.parents[1])}\n" in page
    written = "".join(re.findall(r"^\| (`.*?`) \|", page, re.M))
    patterns = [pattern for key in re.findall(r"`([^`]+)`", written) for pattern in alternatives(key)]
    with np.load(PARITY) as arrays:
        missing = [name for name in arrays.files if not any(fnmatchcase(name, pattern) for pattern in patterns)]
        unused = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in arrays.files)]
    assert not missing and not unused


def alternatives(key: str) -> list[str]:
    """`a/{b,c}/*` -> `a/b/*`, `a/c/*`; capital letters stand for any name."""
    key = key.replace("NAME", "*")
    braces = re.search(r"\{(.*?)\}", key)
    return [key.replace(braces[0], choice) for choice in braces[1].split(",")] if braces else [key]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a .npz file, or --import or --export"),
        (["--import", "a.pt", "--vocabulary", "b.json"], "--import needs --out too"),
        (["--export", "a", "--out", "b"], "--export needs --vocabulary too"),
        (["--import", "a.pt", "--export", "b"], "one thing at a time"),
        (["--import", "a.pt", "--form", "pretrained"], "--form is for --export, not --import"),
        (["--export", "a", "--max-length", "0"], "--max-length is for --import, not --export"),
        (["--import", "a.pt", "--vocabulary", "b.json", "--out", "."], "--out . is there already"),
        (["--import", "absent.pt", "--vocabulary", "b.json", "--out", "new"], "absent.pt: no such weight file"),
    ],
)
def test_commands_that_cannot_be_meant(arguments, words, capsys):
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
