"""The losses: their formulas, their counts, and that cutting a batch changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from testing.task_keys import KEYS
from torch.nn.functional import cosine_similarity, normalize

from idc.losses import classify, mvcl, objectives
from idc.losses.objectives import ObjectiveOptions, counts, prepare


def batch_of(task, full, masked=False):
    keys = ("caption_masked", "caption_labels", "changed") if masked else KEYS[task]
    return {name: full[name] for name in ("before", "after", "photo", *keys) if name in full}


def gradients(model):
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def total(model, task, pieces, options):
    """Loss and gradient of a batch in pieces, as a training loop makes them: counts first, then sum / count."""
    model.zero_grad(set_to_none=True)
    count = {}
    for piece in pieces:
        for name, value in counts(task, piece).items():
            count[name] = count.get(name, 0.0) + value
    loss = 0.0
    for piece in pieces:
        part = torch.stack(
            [term.sum / count[name] for name, term in objectives.losses(model, task, piece, options).items()]
        ).sum()
        part.backward()
        loss += float(part.detach())
    return loss, {name: gradient.clone() for name, gradient in gradients(model).items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("task", [*KEYS, "masked finetune"])
def test_loss_and_gradient_do_not_depend_on_how_the_batch_is_cut(make_model, make_batch, task, dtype, tolerance):
    masked = task == "masked finetune"
    task = task.split()[-1]
    model = make_model(caption_loss="masked" if masked else "causal").to(dtype)
    full = batch_of(task, make_batch(samples=8), masked)
    options = ObjectiveOptions(mvcl_temperature=0.3, fda_temperature=0.2, contrastive_group=2, label_smoothing=0.1)
    expected_loss, expected = total(model, task, [full], options)
    for pieces in (2, 4):
        cut = [
            dict(zip(full, values, strict=True))
            for values in zip(*(x.chunk(pieces) for x in full.values()), strict=True)
        ]
        loss, found = total(model, task, cut, options)
        assert loss == pytest.approx(expected_loss, rel=tolerance)
        assert found.keys() == expected.keys()
        largest = max(float(gradient.abs().max()) for gradient in expected.values())
        for name, gradient in expected.items():
            assert float((found[name] - gradient).abs().max()) <= tolerance * largest, name


@pytest.mark.parametrize("task", KEYS)
def test_places_that_only_fill_the_room_change_nothing(make_model, make_batch, task):
    """Rows that are not real, and room for more words and cells: the losses of the real rows, and their gradients."""
    model, options = make_model(), ObjectiveOptions(mvcl_temperature=0.3, fda_temperature=0.2)
    full = batch_of(task, make_batch(samples=6))
    real = torch.arange(6) < 4
    few = {name: tensor[:4] for name, tensor in full.items()}
    found = []
    for batch in (prepare(task, few), prepare(task, full | {"real": real}, multiple=16)):
        model.zero_grad(set_to_none=True)
        losses = objectives.losses(model, task, batch, options)
        torch.stack([term.mean for term in losses.values()]).sum().backward()
        found.append(
            ({name: (float(term.sum.detach()), float(term.count)) for name, term in losses.items()}, gradients(model))
        )
    (expected, wanted), (padded, trained) = found
    for name, numbers in expected.items():
        assert padded[name] == pytest.approx(numbers, rel=1e-5), name
    assert wanted.keys() == trained.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    assert all(float((trained[name] - gradient).abs().max()) < 2e-6 * largest for name, gradient in wanted.items())


@pytest.mark.parametrize("task", KEYS)
def test_counts_are_known_before_the_forward_pass(make_model, make_batch, task):
    batch = batch_of(task, make_batch())
    found = objectives.losses(make_model(), task, batch)
    assert {name: float(term.count) for name, term in found.items()} == counts(task, batch)
    assert set(found) <= set(objectives.LOSSES)
    for term in found.values():
        assert term.sum.dim() == 0 and term.count > 0


def test_counts_by_hand(make_batch):
    batch = make_batch()
    lengths = (batch["caption"] != 0).sum(dim=1)
    assert counts("finetune", batch_of("finetune", batch)) == {
        "caption": float((lengths - 1).sum()),
        "changed": 3.0,
        "fda": 4.0,
    }
    assert counts("classify", batch) == {"class": 8.0, "match": 4.0, "class_contrastive": 4.0}
    with pytest.raises(ValueError, match="mlm, mvcl, fda"):
        counts("mln", batch)


def test_masked_cells_by_the_formula(make_model, make_batch):
    model, batch, temperature = make_model(), make_batch(), 0.4
    prepared = prepare("mvcl", batch, group=2)
    options = ObjectiveOptions(mvcl_temperature=temperature, contrastive_group=2)
    per_cell = mvcl.cell_contrast(mvcl.masked_cells(model, prepared), options)
    assert not per_cell[~prepared["hidden_known"]].any()
    found = per_cell[prepared["hidden_known"]].tolist()
    pair = model.encode_pair(model.embed_images(batch, batch["visual_mask"]))
    hidden = model.cross_modal(pair, batch["caption"]).images.detach()
    visual = torch.cat([hidden[:, 1:7], hidden[:, 8:14]], dim=1)
    head = normalize(model.feature_head(visual).detach(), dim=-1)
    true = normalize(torch.cat([batch["before"], batch["after"]], dim=1), dim=-1)
    expected = []
    for first in (0, 2):
        places = [(b, i) for b in (first, first + 1) for i in range(12)]
        masked = [place for place in places if batch["visual_mask"][place]]
        for place in masked:
            wrong = sum(math.exp(float(head[place] @ head[p]) / temperature) for p in places if p not in masked)
            right = {p: math.exp(float(head[place] @ true[p]) / temperature) for p in masked}
            expected.append(-math.log(right[place] / (sum(right.values()) + wrong)))
    assert found == pytest.approx(expected, rel=1e-5)


def test_hidden_cells_are_not_seen(make_model, make_batch):
    model, batch = make_model(), make_batch()
    seen = model.embed_images(batch, batch["visual_mask"])
    hidden_before, hidden_after = batch["visual_mask"].chunk(2, dim=1)
    batch["before"][hidden_before] = 7.0
    batch["after"][hidden_after] = -7.0
    again = model.embed_images(batch, batch["visual_mask"])
    assert torch.equal(seen.before, again.before) and torch.equal(seen.after, again.after)
    assert not torch.equal(seen.before, model.embed_images(batch).before)


def test_alignment_by_the_formula(make_model, make_batch):
    model, batch, temperature = make_model(), make_batch(), 0.3
    found = objectives.losses(model, "fda", batch, ObjectiveOptions(fda_temperature=temperature))["fda"]
    expected = 0.0
    for row in range(4):
        similarities = []
        for caption in batch["caption_with_negatives"][row]:
            one = {"before": batch["before"][row : row + 1], "after": batch["after"][row : row + 1]}
            fused = model.cross_modal(model.encode_pair(model.embed_images(one)), caption[None])
            image = (fused.images[0, 0] + fused.images[0, 7]) / 2
            similarities.append(cosine_similarity(image, fused.cls_text[0], dim=0).item() / temperature)
        expected += math.log(sum(map(math.exp, similarities))) - similarities[0]
    assert found.sum.item() == pytest.approx(expected, rel=1e-5)


def test_a_missing_negative_is_no_choice(make_model, make_batch):
    model, batch = make_model(), make_batch()
    fewer = batch | {"caption_with_negatives": batch["caption_with_negatives"][:, :3]}
    absent = batch | {"caption_with_negatives": batch["caption_with_negatives"].clone()}
    absent["caption_with_negatives"][:, 3] = 0
    found, expected = (
        objectives.losses(model, "fda", absent)["fda"].sum,
        objectives.losses(model, "fda", fewer)["fda"].sum,
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    found.backward()
    assert all(bool(gradient.isfinite().all()) for gradient in gradients(model).values())


def test_class_contrast_by_the_formula():
    generator = torch.Generator().manual_seed(0)
    cls, labels = torch.randn(4, 2, 6, generator=generator), torch.tensor([[0, 1], [1, 1], [2, 0], [0, 0]])
    for group in (0, 2):
        size, expected = group or 4, 0.0
        for first in range(0, 4, size):
            photos = cls[first : first + size].reshape(-1, 6)
            classes = labels[first : first + size].flatten().tolist()
            part = 0.0
            for i, a in enumerate(photos):
                for j, b in enumerate(photos):
                    cosine = float(cosine_similarity(a, b, dim=0))
                    part += 1 - cosine if classes[i] == classes[j] else max(cosine - 0.4, 0.0)
            expected += size * part / len(photos) ** 2
        compared = {"photos": normalize(cls, dim=-1).view(1, 8, 6), "classes": labels.view(1, 8)}
        found = classify.class_contrast(compared, ObjectiveOptions(contrastive_group=group))
        assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("task", ["mlm", "mvcl", "fda"])
def test_padding_is_not_seen_unless_asked_for(make_model, make_batch, task):
    batch = batch_of(task, make_batch())
    longer = dict(batch)
    for name, value in batch.items():
        if name.startswith("caption"):  # three words less of room: what is cut off is padding, or the same in both
            value[..., 6:] = -1 if name.endswith("labels") else 0
            batch[name], longer[name] = value[..., :6], value
    options = ObjectiveOptions(mvcl_temperature=0.1, fda_temperature=0.1)
    for mask_padding in (True, False):
        model = make_model(mask_padding=mask_padding)
        short, long = (objectives.losses(model, task, which, options)[task].sum.item() for which in (batch, longer))
        assert (short == pytest.approx(long, rel=1e-5)) is mask_padding


@pytest.mark.parametrize("task", ["mlm", "mvcl", "fda"])
def test_without_padding_nothing_is_masked(make_model, make_batch, task):
    batch = batch_of(task, make_batch())
    for name, value in batch.items():
        if name.startswith("caption"):
            value[..., 1:][value[..., 1:] == 0] = 7
    options = ObjectiveOptions(mvcl_temperature=0.1, fda_temperature=0.1)
    found, expected = (
        objectives.losses(make_model(mask_padding=masked), task, batch, options)[task].sum for masked in (True, False)
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("task", ["mlm", "mvcl", "fda"])
def test_photos(make_model, make_batch, task):
    model, batch = make_model(), batch_of(task, make_batch(photo=True))
    found = objectives.losses(model, task, batch)[task]
    assert bool(found.sum.isfinite()) and found.count == counts(task, batch)[task]
    found.sum.backward()
    trained = gradients(model)
    assert float(trained["projection.weight"].abs().max()) > 0
    unused = 4  # type of the cells of an after image
    assert float(trained["embedding.types.weight"][unused].abs().max()) == 0
    assert float(trained["embedding.types.weight"][3].abs().max()) > 0, "cls-after is in the sequence"


def test_unknown_changes_are_left_out(make_model, make_batch):
    model, batch = make_model(), batch_of("finetune", make_batch())
    known = (batch["changed"] >= 0).nonzero().flatten()
    everything, some = (
        objectives.losses(model, "finetune", batch),
        objectives.losses(model, "finetune", {k: v[known] for k, v in batch.items()}),
    )
    assert everything["changed"].sum.item() == pytest.approx(some["changed"].sum.item(), rel=1e-5)
    assert everything["changed"].count == len(known) == 3
    nobody = objectives.losses(model, "finetune", batch | {"changed": torch.full((4,), -1)})["changed"]
    assert nobody.mean.item() == 0.0


@pytest.mark.parametrize("caption_loss", ["causal", "masked"])
def test_several_references_in_one_pass(make_model, make_batch, caption_loss):
    model, batch = make_model(caption_loss=caption_loss), make_batch()
    keys = ("caption",) if caption_loss == "causal" else ("caption_masked", "caption_labels")
    images = {"before": batch["before"], "after": batch["after"]}
    others = [1, 2, 3, 0]  # the second reference of each pair
    packed = images | {name: torch.stack([batch[name], batch[name][others]], dim=1) for name in keys}
    found = objectives.losses(model, "finetune", packed)["caption"]
    apart = [
        objectives.losses(model, "finetune", images | {name: batch[name][rows] for name in keys})["caption"]
        for rows in (list(range(4)), others)
    ]
    assert found.sum.item() == pytest.approx(sum(term.sum.item() for term in apart), rel=1e-5)
    assert float(found.count) == sum(float(term.count) for term in apart)


def test_alignment_beside_the_caption_is_the_pretraining_one(make_model, make_batch):
    model, batch = make_model(), make_batch()
    beside = objectives.losses(model, "finetune", batch_of("finetune", batch))["fda"].sum
    assert beside.item() == pytest.approx(objectives.losses(model, "fda", batch)["fda"].sum.item(), rel=1e-6)


def test_causal_caption_loss_by_the_formula(make_model, make_batch):
    model, batch = make_model(), make_batch(samples=2)
    pair = model.encode_pair(model.embed_images(batch))
    expected = 0.0
    for row, caption in enumerate(batch["caption"].tolist()):
        end = caption.index(2)
        for position in range(end):
            prefix = torch.tensor([caption[: position + 1]] * 2)
            logits = model.word_head(model.cross_modal_causal(pair, prefix).text[row, -1])
            expected -= logits.log_softmax(-1)[caption[position + 1]].item()
    found = objectives.losses(model, "finetune", {k: batch[k] for k in ("before", "after", "caption")})["caption"]
    assert found.sum.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("caption_loss", ["causal", "masked"])
def test_words_see_no_later_words_and_images_no_words(make_model, make_batch, caption_loss):
    model, batch = make_model(caption_loss=caption_loss), make_batch()
    pair = model.encode_pair(model.embed_images(batch))
    one = model.cross_modal_causal(pair, batch["caption"])
    changed = batch["caption"].clone()
    changed[:, 4:] = 11
    other = model.cross_modal_causal(pair, changed)
    torch.testing.assert_close(one.text[:, :4], other.text[:, :4])
    torch.testing.assert_close(one.images, other.images)
    assert not torch.allclose(one.text[:, 4:], other.text[:, 4:])


@pytest.mark.parametrize("task", KEYS)
def test_bfloat16(make_model, make_batch, task):
    batch = batch_of(task, make_batch())
    expected = objectives.losses(make_model(), task, batch)
    half, mixed = make_model().bfloat16(), make_model()
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = objectives.losses(mixed, task, batch)
    for found in (objectives.losses(half, task, batch), under_autocast):
        for name, term in found.items():
            assert term.sum.dtype == torch.float32
            assert term.sum.item() == pytest.approx(expected[name].sum.item(), rel=0.05, abs=0.05 * float(term.count))


def test_mistakes_are_named(make_model, make_batch):
    model, batch = make_model(), make_batch()
    with pytest.raises(ValueError, match="groups of contrastive_group = 3"):
        objectives.losses(model, "mvcl", batch, ObjectiveOptions(contrastive_group=3))
    with pytest.raises(ValueError, match="set classes"):
        objectives.losses(make_model(classes=0), "classify", batch)
    with pytest.raises(ValueError, match=r"\(6, 9\).*\(6, 10\)"):
        objectives.losses(model, "mlm", batch | {"before": batch["before"][..., :9]})
    for options in (
        {"mvcl_temperature": 0},
        {"fda_temperature": -1},
        {"contrastive_group": -1},
        {"label_smoothing": 1},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            ObjectiveOptions(**options)
