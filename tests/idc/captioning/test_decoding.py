"""Captions: the cache is exact, greedy is beam 1, beam search finds what enumeration finds."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import idc.captioning.decoding
from idc.captioning.decoding import ASK_EVERY, generate
from idc.model.config import BOS, EOS, MASK, PAD

FORMS = ["causal", "masked"]
OURS = {"architecture": "idc", "fine_channels": 2, "regions": 4, "novelties": 2, "pooled": 2, "cell_size": 8}


def images(batch):
    return {name: batch[name] for name in ("before", "after", "photo") if name in batch}


@torch.no_grad()
def logits_without_cache(model, batch, prefix):
    """(n, V) after the prefixes (n, t): everything computed anew."""
    pair = model.encode_pair(model.embed_images(images(batch)))
    if model.config.caption_loss == "masked":
        prefix = torch.cat([prefix, torch.full((len(prefix), 1), MASK)], dim=1)
    return model.word_head(model.cross_modal_causal(pair, prefix).text[:, -1])


@pytest.mark.parametrize("photo", [False, True])
@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_the_cache_changes_nothing(make_model, make_batch, form, final_norm, photo):
    model = make_model(caption_loss=form, final_norm=final_norm)
    batch = make_batch(samples=3, photo=photo)
    state, _ = model.start_captions(images(batch), 9)
    prefix = torch.full((3, 1), BOS)
    for _ in range(8):
        found, expected = model.next_word(state, prefix[:, -1:])[:, 0], logits_without_cache(model, batch, prefix)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        prefix = torch.cat([prefix, expected.argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(generate(model, images(batch), stop_at_eos=False).tokens, prefix)


@pytest.mark.parametrize("form", FORMS)
def test_greedy_takes_the_best_word_and_stops_at_the_end(make_model, make_batch, form):
    model, batch = make_model(caption_loss=form), make_batch(samples=3)
    with torch.no_grad():
        model.word_head.bias[EOS] += 4.0 if form == "causal" else 8.0
    found = generate(model, images(batch))
    tokens = found.tokens
    for row, sentence in enumerate(tokens.tolist()):
        one = {name: value[row : row + 1] for name, value in images(batch).items()}
        prefix, expected = [BOS], 0.0
        while len(prefix) < 9 and prefix[-1] != EOS:
            step = logits_without_cache(model, one, torch.tensor([prefix])).log_softmax(-1)
            prefix.append(int(step.argmax()))
            expected += float(step.max())
        assert sentence == prefix + [PAD] * (9 - len(prefix))
        assert float(found.log_probability[row]) == pytest.approx(expected, rel=1e-4)
    assert (tokens == EOS).any(), "the test needs a sentence that ends"


def hide_tokens(model, monkeypatch):
    """Some visual tokens, others in each image, come to stand for nothing."""
    embed = model.embed_images

    def embed_some(batch):
        tokens = embed(batch)
        valid = [side[..., 0] > 0 for side in (tokens.before, tokens.after)]
        return dataclasses.replace(tokens, before_valid=valid[0], after_valid=valid[1])

    monkeypatch.setattr(model, "embed_images", embed_some)


@torch.no_grad()
def search_without_cache(model, batch, beam, length_penalty):
    """The textbook's beam search, everything computed anew for each word: [(sentence, log-probability)] a row."""
    found = []
    for row in range(len(batch["before"])):
        one = {name: value[row : row + 1] for name, value in images(batch).items()}
        sentences = [([BOS], 0.0)]
        for _ in range(model.config.max_length - 1):
            longer = [pair for pair in sentences if pair[0][-1] == EOS]
            for words, score in sentences:
                if words[-1] != EOS:
                    step = logits_without_cache(model, one, torch.tensor([words]))[0].log_softmax(-1).tolist()
                    longer += [(words + [word], score + gained) for word, gained in enumerate(step)]
            sentences = sorted(longer, key=lambda pair: pair[1], reverse=True)[:beam]
        ranked = sorted(sentences, key=lambda pair: pair[1] / (len(pair[0]) - 1) ** length_penalty, reverse=True)
        found.append(ranked)
    return found


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("beam", [1, 3, 5])
def test_the_search_is_the_search_without_a_cache(make_model, make_batch, monkeypatch, beam, form, hidden):
    model, batch = make_model(seed=1, caption_loss=form), make_batch(samples=3)
    with torch.no_grad():
        model.word_head.bias[EOS] += 4.0 if form == "causal" else 8.0
    if hidden:
        hide_tokens(model, monkeypatch)
    found = generate(model, images(batch), beam=beam, length_penalty=0.7)
    for row, expected in enumerate(search_without_cache(model, batch, beam, 0.7)):
        padded = [words + [PAD] * (9 - len(words)) for words, _ in expected]
        assert found.alternatives[row].tolist() == padded
        log_probability = torch.tensor([score for _, score in expected])
        torch.testing.assert_close(found.alternative_log_probability[row], log_probability, rtol=1e-5, atol=1e-5)
    lengths = (found.alternatives != PAD).sum(-1)
    assert lengths.min() < 9, "the test needs a sentence that ends"
    assert beam == 1 or lengths.unique().numel() > 1, "and sentences of different lengths"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("beam", [1, 3])
def test_a_batch_is_its_samples(make_model, make_batch, form, beam):
    model, batch = make_model(caption_loss=form), make_batch(samples=4)
    together = generate(model, images(batch), beam=beam, length_penalty=0.7)
    assert together.alternatives.shape == (4, beam, 9)
    for row in range(4):
        one = {name: value[row : row + 1] for name, value in images(batch).items()}
        alone = generate(model, one, beam=beam, length_penalty=0.7)
        assert torch.equal(alone.alternatives[0], together.alternatives[row])
        torch.testing.assert_close(alone.alternative_log_probability[0], together.alternative_log_probability[row])
        torch.testing.assert_close(alone.changed[0], together.changed[row])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_wide_beam_finds_what_enumeration_finds(make_model, make_batch, form, length_penalty):
    model, batch = make_model(vocab_size=8, caption_loss=form, max_length=4), make_batch(samples=2)
    with torch.no_grad():
        model.word_head.bias[EOS] += 1.0
    words = [word for word in range(8) if word != EOS]
    sentences = [list(some) + [EOS] for n in range(3) for some in itertools.product(words, repeat=n)]
    sentences += [list(some) for some in itertools.product(words, repeat=3)]
    found = generate(model, images(batch), beam=len(sentences), length_penalty=length_penalty)
    for row in range(2):
        one = {name: value[row : row + 1].expand(len(sentences), -1, -1) for name, value in images(batch).items()}
        log_probability, ended = torch.zeros(len(sentences)), torch.zeros(len(sentences), dtype=torch.bool)
        padded = torch.tensor([[BOS] + sentence + [PAD] * (3 - len(sentence)) for sentence in sentences])
        for position in range(3):
            step = logits_without_cache(model, one, padded[:, : position + 1]).log_softmax(-1)
            gained = step.gather(1, padded[:, position + 1 : position + 2])[:, 0]
            log_probability += gained.masked_fill(ended, 0.0)
            ended |= padded[:, position + 1] == EOS
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        order = (log_probability / lengths**length_penalty).argsort(descending=True)
        assert torch.equal(found.alternatives[row, :5], padded[order[:5]])
        torch.testing.assert_close(found.alternative_log_probability[row], log_probability[order])
        # All sentences are found once, and their probabilities add up to one.
        assert len(set(map(tuple, found.alternatives[row].tolist()))) == len(sentences)
        assert float(found.alternative_log_probability[row].exp().sum()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_beam_of_one_is_greedy(make_model, make_batch, form):
    model, batch = make_model(caption_loss=form), make_batch(samples=4)
    greedy = generate(model, images(batch), stop_at_eos=True)
    one = generate(model, images(batch), beam=1, length_penalty=2.0)
    assert torch.equal(greedy.tokens, one.tokens) and torch.equal(greedy.log_probability, one.log_probability)
    wide = generate(model, images(batch), beam=8)
    assert bool((wide.log_probability >= greedy.log_probability - 1e-5).all())


def test_a_beam_wider_than_the_vocabulary(make_model, make_batch):
    model, batch = make_model(vocab_size=7, max_length=3), make_batch(samples=1)
    found = generate(model, images(batch), beam=60)
    real = found.alternative_log_probability[0].isfinite()
    assert int(real.sum()) == 6 * 7 + 1, "six words then any of seven, or <eos> at once"
    assert not bool(real[43:].any()) and bool(found.alternatives[0, :43].ge(0).all())


def test_the_search_ends_when_all_have_ended(make_model, make_batch, monkeypatch):
    model, batch, steps = make_model(), make_batch(samples=3), []
    with torch.no_grad():
        model.word_head.bias[EOS] += 1000.0
    original = model.next_word
    monkeypatch.setattr(model, "next_word", lambda *arguments: steps.append(1) or original(*arguments))
    found = generate(model, images(batch))
    assert len(steps) == 1
    assert found.tokens.tolist() == [[BOS, EOS] + [PAD] * 7] * 3


@pytest.mark.parametrize("beam", [1, 4])
def test_looking_seldom_whether_all_have_ended_changes_nothing(make_model, make_batch, monkeypatch, beam):
    model, batch, steps = make_model(max_length=20), make_batch(samples=4), []
    with torch.no_grad():
        model.word_head.bias[EOS] += 4.0
    original = model.next_word
    monkeypatch.setattr(model, "next_word", lambda *arguments: steps.append(1) or original(*arguments))
    often = generate(model, images(batch), beam=beam, length_penalty=0.7)
    taken = len(steps)
    monkeypatch.setattr(idc.captioning.decoding, "_asked_every", lambda device: ASK_EVERY)
    seldom = generate(model, images(batch), beam=beam, length_penalty=0.7)
    assert taken % ASK_EVERY and len(steps) - taken == min(-(-taken // ASK_EVERY) * ASK_EVERY, 19)
    for name in ("alternatives", "alternative_log_probability", "changed"):
        assert torch.equal(getattr(often, name), getattr(seldom, name))


class OnDevice(TorchDispatchMode):
    """Every tensor that takes part has to be on the device of this type."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        assert all(tensor.device.type == self.kind for tensor in tensors), f"{function} takes tensors across"
        return result


@pytest.mark.parametrize("architecture", [{}, OURS])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("beam", [1, 3])
def test_the_host_does_not_wait_for_the_device(make_model, make_batch, beam, form, architecture):
    """On the device without data whatever depends on a tensor's content cannot be had: a number, a truth, a shape."""
    model = make_model(caption_loss=form, max_length=ASK_EVERY + 1, **architecture).to("meta")
    batch = {name: value.to("meta") for name, value in images(make_batch(samples=3)).items()}
    with OnDevice("meta"):
        found = generate(model, batch, beam=beam, max_length=ASK_EVERY)
        assert found.alternatives.shape == (3, beam, ASK_EVERY)
        with pytest.raises(RuntimeError, match="cannot be called on meta tensors"):
            generate(model, batch, beam=beam)


def test_changed_probability_is_the_head_of_fine_tuning(make_model, make_batch):
    model, batch = make_model(), make_batch()
    with torch.no_grad():
        pair = model.encode_pair(model.embed_images(batch))
        logits = model.changed_logits(pair, model.cross_modal_causal(pair, batch["caption"]).images)
    torch.testing.assert_close(generate(model, images(batch)).changed, logits.softmax(dim=-1)[:, 1])


def test_dropout_is_off_and_the_mode_stays(make_model, make_batch):
    model, batch = make_model(dropout=0.5).train(), make_batch()
    assert torch.equal(generate(model, images(batch)).tokens, generate(model, images(batch)).tokens)
    assert model.training and model.cross_modal_stack.training


def test_bfloat16(make_model, make_batch):
    model, batch = make_model().bfloat16(), make_batch()
    found = generate(model, images(batch), beam=2)
    assert found.log_probability.dtype == torch.float32 and bool(found.log_probability.isfinite().all())


def test_mistakes_are_named(make_model, make_batch):
    model, batch = make_model(), make_batch()
    with pytest.raises(ValueError, match="beam is 0"):
        generate(model, images(batch), beam=0)
    for length in (1, 10):
        with pytest.raises(ValueError, match="sentences of 2 to 9"):
            generate(model, images(batch), max_length=length)
