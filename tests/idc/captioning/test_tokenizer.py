import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idc.captioning import tokenizer as tokenizers
from idc.model.config import BOS, EOS, PAD, UNK
from shards.packing.tokenizer import train_tokenizer

CAPTIONS = [
    "the large red metal cube has disappeared",
    "the small blue rubber ball changed its location",
    "there is no change",
]


@pytest.fixture(scope="module", params=["sentencepiece", "words"])
def tokenizer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    entry = train_tokenizer(CAPTIONS, folder, request.param)
    loaded = tokenizers.load(folder / entry["file"])
    assert loaded.size == entry["size"]
    return loaded


def test_known_captions_come_back(tokenizer):
    for caption in CAPTIONS:
        ids = tokenizer.encode(caption)
        assert min(ids) > max(BOS, EOS, PAD, UNK)
        assert tokenizer.decode([BOS, *ids, EOS, PAD, 7]) == caption


def test_unknown_words_are_shown_as_unknown(tokenizer):
    ids = tokenizer.encode("the 漢 cube")
    assert UNK in ids
    assert tokenizer.decode(ids) == "the <unk> cube"


def test_batch_has_bos_eos_and_padding_and_cuts_long_texts(tokenizer):
    rows = tokenizer.batch([CAPTIONS[2], " ".join(CAPTIONS), ""], 8)
    assert rows.shape == (3, 8) and rows.dtype == np.int64
    assert tokenizer.decode(rows[0]) == CAPTIONS[2]
    assert (rows[:, 0] == BOS).all()
    assert rows[1, -1] == EOS and PAD not in rows[1]
    assert rows[2].tolist() == [BOS, EOS] + [PAD] * 6


def test_pickles_by_its_file(tokenizer):
    assert pickle.loads(pickle.dumps(tokenizer)).encode(CAPTIONS[0]) == tokenizer.encode(CAPTIONS[0])


@given(st.lists(st.sampled_from("the large red metal cube has disappeared".split()), max_size=30))
def test_words_equal_plain_splitting(tmp_path_factory, words):
    folder = tmp_path_factory.getbasetemp() / "plain"
    folder.mkdir(exist_ok=True)
    entry = train_tokenizer(CAPTIONS, folder, "words")
    loaded = tokenizers.load(folder / entry["file"])
    ids = loaded.encode("  ".join(words))
    assert len(ids) == len(words)
    assert loaded.decode(ids) == " ".join(words)


@pytest.mark.parametrize(
    "name, content",
    [
        ("tokenizer.model", b"not a model"),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b'{"kind": "words", "words": ["<bos>", "<pad>", "cube"]}'),
        ("vocab.txt", b"cube"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(tokenizers.TokenizerError, match=name):
        tokenizers.load(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(tokenizers.TokenizerError, match="tokenizer.model"):
        tokenizers.load(tmp_path / "tokenizer.model")
