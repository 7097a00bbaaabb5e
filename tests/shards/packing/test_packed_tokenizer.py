"""Tokenizers: special ids, whole words, training text alone, the same file every time."""

from __future__ import annotations

import json

import pytest
import sentencepiece

from shards.errors import DataError
from shards.packing.tokenizer import SPECIAL, text_statistics, train_tokenizer
from shards.sources import blocks


@pytest.fixture(scope="module")
def captions() -> list[str]:
    source = blocks.BlocksSource(scenes=(60, 0, 0), relational=0.3, class_photos=0)
    return [caption for record in source.records(1) for caption in record.captions]


def test_sentencepiece_has_the_special_ids_and_whole_words(captions, tmp_path):
    entry = train_tokenizer(captions, tmp_path, "sentencepiece")
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / entry["file"]))
    assert [model.id_to_piece(number) for number in range(6)] == list(SPECIAL)
    assert entry["size"] == model.get_piece_size() <= 512
    words = {word for caption in captions for word in caption.split()}
    assert all(len(model.encode(word)) == 1 for word in words)
    assert all(model.decode(model.encode(caption)) == caption for caption in captions)
    # Special symbols in a text are text, not tokens.
    assert not set(model.encode("<mask> <cls> <eos>")) & {0, 1, 2, 4, 5}


def test_words_are_split_at_blanks_and_ordered_by_frequency(tmp_path):
    captions = ["the Cube, is gone", "the cube is gone", "the ball moved"]
    entry = train_tokenizer(captions, tmp_path, "words")
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    assert content == {"kind": "words", "words": [*SPECIAL, "the", "gone", "is", "Cube,", "ball", "cube", "moved"]}
    assert entry["size"] == 13
    train_tokenizer(captions, tmp_path, "words", minimum_count=2)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["words"][6:] == ["the", "gone", "is"]
    train_tokenizer(captions, tmp_path, "words", size=7)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["words"][6:] == ["the"]


@pytest.mark.parametrize("kind", ["sentencepiece", "words"])
def test_the_same_captions_give_the_same_file(captions, tmp_path, kind):
    first = train_tokenizer(captions, tmp_path, kind)
    assert train_tokenizer(captions, tmp_path, kind) == first


def test_a_size_is_kept_to(captions, tmp_path):
    assert train_tokenizer(captions, tmp_path, "sentencepiece", size=100)["size"] == 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((["a b"], "letters"), "--tokenizer"),
        (([], "words"), "no training captions"),
        ((["a b"], "words", 6), "--vocabulary-size 6"),
        ((["the cube is gone"], "sentencepiece", 9), "--vocabulary-size 9"),
        ((["a b"], "sentencepiece", None, 2), "--minimum-count"),
    ],
)
def test_impossible_requests_are_refused_by_option(arguments, words, tmp_path):
    captions, kind, *rest = arguments
    with pytest.raises(DataError, match=words) as caught:
        train_tokenizer(captions, tmp_path, kind, *rest)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_text_statistics():
    assert text_statistics(["a b", "a b", "c"]) == {
        "captions": 3,
        "distinct_captions": 2,
        "words": 5,
        "distinct_words": 3,
        "longest_words": 2,
    }
