"""Batches are a function of the step: the same samples, captions and masks on any number of ranks, and right ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from cluster.batches.batches import Batches, StepBatch, name_words
from cluster.batches.fda_samples import draw_list
from cluster.config.fields import NegativesConfig, StageConfig
from cluster.config.tasks import TASKS
from idc.captioning import tokenizer as tokenizers
from idc.losses.objectives import OBJECTIVES
from idc.model.config import BOS, EOS, MASK, NOT_SCORED, PAD
from shards.errors import DataError
from shards.order.permutation import generator, locate
from shards.reading.reader import Folder

GRID = (3, 4)


def make(tiny: Any, stage: StageConfig, rank: int = 0, world: int = 1, **model: Any) -> Batches:
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    config = dataclasses.replace(tiny.config.model, **model)
    names = Folder.open(tiny.shards).manifest["classes"]
    return Batches(tiny.shards, tiny.features, tokenizer, config, 12, stage, 5, rank, world, names=names)


def of_task(batches: Batches, task: str) -> StepBatch:
    step = next(step for step in range(batches.schedule.steps) if batches.schedule.task(step) == task)
    return batches.step(step)


# What is known of a micro-batch as a whole.
TOGETHER = ("caption_labels", "counts", "word_places", "word_labels", "hidden_places", "hidden_known", "label_rows",
            "label_weights")  # fmt: skip


def rows(batch: StepBatch) -> list[bytes]:
    """Each sample of a step as bytes, whatever it is cut into."""
    found = []
    for part in batch.micro_batches:
        for row in range(len(next(iter(part.values())))):
            tensors = {name: tensor[row] for name, tensor in part.items() if name not in TOGETHER}
            for name, tensor in tensors.items():
                if "caption" in name:  # padding depends on what else is in the micro-batch
                    tensors[name] = tensor[..., : int((tensor != PAD).sum(-1).max())]
            found.append(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors)))
    return found


@pytest.mark.parametrize("stage_name", ["pretrain", "finetune"])
def test_any_number_of_ranks_and_micro_batches_see_the_same_samples(tiny: Any, stage_name: str) -> None:
    stage = dataclasses.replace(tiny.config.stage(stage_name), steps=40)
    alone = make(tiny, stage)
    pair = [make(tiny, dataclasses.replace(stage, micro_batch_size=2), rank, 2) for rank in range(2)]
    seen = set()
    for step in range(0, 40, 3):
        whole, parts = alone.step(step), [batches.step(step) for batches in pair]
        seen.add(whole.task)
        assert {batch.task for batch in parts} == {whole.task} and whole.samples == 8
        assert sorted(rows(whole)) == sorted(rows(parts[0]) + rows(parts[1]))
        assert all(len(next(iter(part.values()))) == 2 for batch in parts for part in batch.micro_batches)
    assert len(seen) >= 2


def test_a_step_is_the_same_whenever_it_is_asked_for(tiny: Any) -> None:
    one, other = make(tiny, tiny.config.pretraining["pretrain"]), make(tiny, tiny.config.pretraining["pretrain"])
    for step in (7, 2, 9):
        one.step(step)
    assert rows(one.step(4)) == rows(other.step(4))


@pytest.mark.parametrize("task", ["mlm", "mvcl", "fda", "classify", "photo_mlm", "photo_mvcl", "photo_fda"])
def test_shapes_of_each_task(tiny: Any, task: str) -> None:
    stage = dataclasses.replace(tiny.config.pretraining["pretrain"], steps=1, ratios={task: 1.0}, micro_batch_size=8)
    batch = of_task(make(tiny, stage), task)
    (part,) = batch.micro_batches
    assert batch.model_task == task.removeprefix("photo_")
    images = ["photo"] if task.startswith("photo") else ["before", "after"]
    for image in images:
        assert part[image].shape == (8, 12, 272) and part[image].dtype == torch.float16
    if "mlm" in task:
        masked, labels = part["caption_masked"], part["caption_labels"]
        assert (labels != NOT_SCORED).any(dim=1).all() and (masked[labels == NOT_SCORED] != MASK).all()
        assert (masked[:, 0] == BOS).all()
    if "mvcl" in task:
        assert part["visual_mask"].shape == (8, 12 * len(images))
        assert part["visual_mask"].any(dim=1).all() and not part["visual_mask"].all(dim=1).any()
    if "fda" in task:
        captions = part["caption_with_negatives"]
        assert captions.shape[:2] == (8, 3)
        for row in captions.tolist():
            assert len({tuple(caption) for caption in row}) == 3, "the caption and its negatives all differ"
    if task == "classify":
        same = part["class_before"] == part["class_after"]
        assert (same == part["same_class"].bool()).all()


def test_sizes_are_rounded_up_so_that_shapes_repeat(tiny: Any) -> None:
    stage = dataclasses.replace(tiny.config.pretraining["pretrain"], steps=20, ratios={"mlm": 1, "mvcl": 1})
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    plain, rounded = (
        Batches(tiny.shards, tiny.features, tokenizer, tiny.config.model, 12, stage, 5, 0, 1, multiple=a, room=b)
        for a, b in ((1, 1), (8, 32))
    )
    shapes: dict[str, set[tuple[int, ...]]] = {"mlm": set(), "mvcl": set()}
    for step in range(20):
        one, other = plain.step(step), rounded.step(step)
        for part, same in zip(one.micro_batches, other.micro_batches, strict=True):
            shapes[one.task].add(tuple(size for name in sorted(same) for size in same[name].shape))
            assert torch.equal(part["counts"], same["counts"])
            caption = "caption_masked" if one.task == "mlm" else "caption"
            assert same[caption].shape[1] % 8 == 0 and same[caption].shape[1] - part[caption].shape[1] < 8
            places = same["word_places" if one.task == "mlm" else "hidden_places"]
            assert places.shape[-1] % 32 == 0
    assert all(len(found) <= 3 for found in shapes.values())


def test_captions_belong_to_their_images(tiny: Any) -> None:
    stage = dataclasses.replace(tiny.config.finetune, steps=1, ratios={"finetune": 1.0}, micro_batch_size=8)
    batches = make(tiny, stage)
    (part,) = batches.step(0).micro_batches
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    records, features = (Folder.open(path).stream("pair", "train") for path in (tiny.shards, tiny.features))
    _, indices = locate(np.arange(8), len(records), 5)
    for row, index in enumerate(indices.tolist()):
        record = records.metadata(index)
        assert part["caption"][row].shape[0] == 2
        for caption in part["caption"][row].tolist():
            assert tokenizer.decode(caption[1:]) in record["captions"] and EOS in caption
        assert part["changed"][row] == record["changed"]
        assert torch.equal(part["before"][row], torch.from_numpy(np.array(features.arrays(index)["before"])))


def test_padding_is_cut_unless_the_model_attends_to_it(tiny: Any) -> None:
    stage = dataclasses.replace(tiny.config.pretraining["pretrain"], steps=1, ratios={"mlm": 1.0}, micro_batch_size=8)
    cut, whole = (make(tiny, stage, mask_padding=masked).step(0).micro_batches[0] for masked in (True, False))
    length = cut["caption_masked"].shape[1]
    assert (cut["caption_masked"][:, -1] != PAD).any()
    assert whole["caption_masked"].shape == (8, tiny.config.model.max_length)
    assert torch.equal(whole["caption_masked"][:, :length], cut["caption_masked"])
    assert torch.equal(whole["caption_labels"][:, :length], cut["caption_labels"])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_class_pairs_come_at_the_share_asked_for(tiny: Any, share: float) -> None:
    stage = dataclasses.replace(
        tiny.config.pretraining["pretrain"],
        steps=1,
        ratios={"classify": 1.0},
        global_batch_size=400,
        same_class_share=share,
    )
    parts = make(tiny, stage).step(0).micro_batches
    same = torch.cat([part["same_class"] for part in parts]).float().mean().item()
    assert same == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)  # four standard deviations
    assert not any(torch.equal(part["before"], part["after"]) for part in parts)
    drawn = torch.cat([part["class_after"] for part in parts]).unique()
    assert len(drawn) > 80, "partners come from all 96 classes"


def test_negatives_come_from_the_kinds_asked_for_in_turn() -> None:
    record = {
        "captions": ["true"],
        "negatives": {"retrieve": ["r1", "r2", "r3"], "replace": ["p1"], "confuse": ["c1", "c2"]},
    }
    rng = generator(0, 0, 0, "test")
    assert {text[0] for text in draw_list(record, NegativesConfig(count=3), rng)[1:]} == {"r", "p", "c"}
    only = draw_list(record, NegativesConfig(("replace", "confuse"), count=5), rng)
    assert sorted(only[1:]) == ["", "", "c1", "c2", "p1"] and only[0] == "true"
    assert draw_list(record | {"negatives": {}}, NegativesConfig(count=2), rng) == ["true", "", ""]


def test_missing_negatives_become_rows_of_padding(tiny: Any) -> None:
    stage = dataclasses.replace(
        tiny.config.pretraining["pretrain"],
        steps=1,
        ratios={"fda": 1.0},
        micro_batch_size=8,
        negatives=NegativesConfig(count=40),
    )
    (part,) = make(tiny, stage).step(0).micro_batches
    absent = (part["caption_with_negatives"] == PAD).all(dim=-1)
    assert absent[:, -1].all() and not absent[:, :4].any()


def test_data_that_cannot_serve_a_task_are_refused(tiny: Any, tmp_path: Any) -> None:
    import shutil

    from shards.format import manifest

    lacking = tmp_path / "lacking"
    shutil.copytree(tiny.features, lacking)
    contents = manifest.read(lacking)
    contents["shards"] = [shard for shard in contents["shards"] if shard["kind"] != "photo"]
    contents["splits"] = manifest.count_splits(contents["shards"])
    manifest.write(lacking, contents)
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    stage = dataclasses.replace(tiny.config.pretraining["pretrain"], ratios={"photo_mlm": 1.0})
    with pytest.raises(DataError, match="lacking has other photo samples of train"):
        Batches(tiny.shards, lacking, tokenizer, tiny.config.model, 12, stage, 5, 0, 1)


def test_every_objective_is_trained_by_a_task() -> None:
    assert {task.objective for task in TASKS.values()} == set(OBJECTIVES)
    assert {task.stream for task in TASKS.values()} == {"pair", "photo", "class"}


def test_labels_are_the_class_or_what_captions_name(tiny: Any) -> None:
    stage = dataclasses.replace(
        tiny.config.pretraining["pretrain"], steps=40, ratios={"class_labels": 1, "photo_labels": 1}
    )
    batches = make(tiny, stage)
    folder = Folder.open(tiny.shards)
    names = folder.manifest["classes"]
    for task, kind in (("class_labels", "class"), ("photo_labels", "photo")):
        step = next(step for step in range(40) if batches.schedule.task(step) == task)
        batch = batches.step(step)
        assert batch.model_task == "labels"
        present = torch.cat([part["present"] for part in batch.micro_batches])
        photos = torch.cat([part["photo"] for part in batch.micro_batches])
        assert present.shape == (8, len(names)) and len(photos) == 8
        stream = folder.stream(kind, "train")
        positions = np.arange(batches.schedule.start(step), batches.schedule.start(step) + 8)
        _, indices = locate(positions, len(stream), 5)
        for row, index in zip(present, indices.tolist(), strict=True):
            record = stream.metadata(index)
            found = {names[i] for i in row.nonzero().flatten().tolist()}
            if kind == "class":
                assert found == {record["class_name"]}
            else:
                said = [
                    phrase for text in record["captions"] for phrase in text.removeprefix("a photo of ").split(" and ")
                ]
                assert found == {phrase.removeprefix("a ") for phrase in said}


def test_labels_of_a_pair_are_what_its_captions_name(tiny: Any) -> None:
    stage = dataclasses.replace(tiny.config.pretraining["pretrain"], steps=1, ratios={"pair_labels": 1})
    names = ("cube", "metal cube", "cylinder")
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    model = dataclasses.replace(tiny.config.model, classes=3)
    batches = Batches(tiny.shards, tiny.features, tokenizer, model, 12, stage, 5, 0, 1, names=names)
    batch = batches.step(0)
    assert batch.model_task == "labels"
    assert {"before", "after", "present", "label_rows", "label_weights", "counts"} == set(batch.micro_batches[0])
    present = torch.cat([part["present"] for part in batch.micro_batches])
    stream = Folder.open(tiny.shards).stream("pair", "train")
    _, indices = locate(np.arange(8), len(stream), 5)
    for row, index in zip(present.tolist(), indices.tolist(), strict=True):
        record = stream.metadata(index)
        said = " | ".join(["", *record["captions"], ""])
        assert row == ([float(f" {name} " in said) for name in names] if record["changed"] else [-1.0] * 3)
    assert (present == -1).any() and (present == 1).any()


def test_a_class_photo_shows_the_words_of_its_name(tiny: Any) -> None:
    stage = dataclasses.replace(tiny.config.pretraining["pretrain"], steps=1, ratios={"class_labels": 1})
    words = ("cube", "red", "sphere", "rubber")
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    model = dataclasses.replace(tiny.config.model, classes=4, attributes=True)
    batch = Batches(tiny.shards, tiny.features, tokenizer, model, 12, stage, 5, 0, 1, names=words).step(0)
    present = torch.cat([part["present"] for part in batch.micro_batches])
    stream = Folder.open(tiny.shards).stream("class", "train")
    _, indices = locate(np.arange(8), len(stream), 5)
    for row, index in zip(present.tolist(), indices.tolist(), strict=True):
        assert row == [float(word in stream.metadata(index)["class_name"].split()) for word in words]


def test_words_of_class_names_are_padded(tiny: Any) -> None:
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    ids = name_words(["large red metal cube", "cube"], tokenizer)
    assert tokenizer.decode(ids[0].tolist()) == "large red metal cube"
    assert ids[1, 0] == ids[0, -1] and (ids[1, 1:] == PAD).all()
    assert name_words([], tokenizer).shape == (0, 0)
