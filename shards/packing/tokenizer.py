"""Trains the tokenizer of a shard folder, on its training captions alone.

Ids 0 to 5 are <pad>, <bos>, <eos>, <unk>, <cls>, <mask> in both kinds.

`sentencepiece` (tokenizer.model) is byte-pair encoding. On template captions the unigram model left three words of four
cut into pieces (2.2 tokens a word, measured), byte-pair encoding none; it also keeps parts for words never seen.
`words` (tokenizer.json) splits at white space and changes nothing else, as the reference implementation does:
{"kind": "words", "words": [...]}, a word's id being its place in the list.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from shards.errors import DataError
from shards.format.tars import file_sha256
from shards.format.whole_files import write_whole

KINDS = ("sentencepiece", "words")
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<cls>", "<mask>")

# Where no size is asked for, sentencepiece vocabularies double from the first to the last of these until nearly every
# word of the captions is one piece: short sequences for template captions, a bounded table for free text.
SMALLEST_SIZE, LARGEST_SIZE = 256, 8192
ONE_PIECE_SHARE = 0.99


def train_tokenizer(
    captions: Sequence[str], folder: Path, kind: str, size: int | None = None, minimum_count: int = 1
) -> dict:
    """Writes folder/tokenizer.model or .json and returns the manifest's entry {"kind", "file", "size", "sha256"}.

    `size` is the largest vocabulary, specials counted (None: as the captions need, see above; for words, all of them);
    `minimum_count` leaves rarer words to <unk> (words only). The same captions give the same file.
    Raises DataError where there is nothing to train on or the size is too small.
    """
    if kind not in KINDS:
        raise DataError(f"--tokenizer is {kind!r}: choose {' or '.join(KINDS)}")
    if minimum_count != 1 and kind != "words":
        raise DataError("--minimum-count is an option of --tokenizer words alone")
    counts = Counter(word for caption in captions for word in caption.split())
    if not counts:
        raise DataError("no training captions, so no tokenizer can be trained: is the training split empty?")
    if size is not None and size <= len(SPECIAL):
        raise DataError(f"--vocabulary-size {size} is too small: {len(SPECIAL)} ids are special, ask for more")
    if kind == "words":
        data, pieces = _train_words(counts, size, minimum_count)
        path = folder / "tokenizer.json"
    else:
        data, pieces = _train_sentencepiece(captions, counts, size)
        path = folder / "tokenizer.model"
    write_whole(path, data)
    return {"kind": kind, "file": path.name, "size": pieces, "sha256": file_sha256(path)}


def _train_words(counts: Counter[str], size: int | None, minimum_count: int) -> tuple[bytes, int]:
    """The most frequent words first, equals in alphabetical order."""
    words = sorted((word for word in counts if counts[word] >= minimum_count), key=lambda word: (-counts[word], word))
    words = [*SPECIAL, *(word for word in words if word not in SPECIAL)][:size]
    return (json.dumps({"kind": "words", "words": words}, ensure_ascii=False, indent=0) + "\n").encode(), len(words)


def _train_sentencepiece(captions: Sequence[str], counts: Counter[str], size: int | None) -> tuple[bytes, int]:
    total = sum(counts.values())
    wanted = size or SMALLEST_SIZE
    while True:
        data = _byte_pairs(captions, wanted)
        model = sentencepiece.SentencePieceProcessor(model_proto=data)
        if size is not None or model.get_piece_size() < wanted or wanted >= LARGEST_SIZE:
            break
        whole = sum(count for word, count in counts.items() if len(model.encode(word)) == 1)
        if whole >= ONE_PIECE_SHARE * total:
            break
        wanted *= 2
    return data, model.get_piece_size()


def _byte_pairs(captions: Sequence[str], size: int) -> bytes:
    """A byte-pair model of at most `size` pieces: one thread, nothing sampled, so always the same."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(captions),
            model_writer=model,
            model_type="bpe",
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            max_sentence_length=1 << 20,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            pad_piece=SPECIAL[0],
            bos_piece=SPECIAL[1],
            eos_piece=SPECIAL[2],
            unk_piece=SPECIAL[3],
            control_symbols=list(SPECIAL[4:]),
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(
            f"--vocabulary-size {size}: sentencepiece cannot train on these captions ({str(error).splitlines()[0]})"
        ) from None
    return model.getvalue()


def text_statistics(captions: Sequence[str]) -> dict:
    """What the manifest says of the training captions: counts of captions and words, and the longest in words."""
    words = Counter(word for caption in captions for word in caption.split())
    return {
        "captions": len(captions),
        "distinct_captions": len(set(captions)),
        "words": sum(words.values()),
        "distinct_words": len(words),
        "longest_words": max((len(caption.split()) for caption in captions), default=0),
    }
