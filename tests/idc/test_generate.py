"""Captions: the cache is exact, greedy is beam 1, beam search finds what enumeration finds."""

from __future__ import annotations

import itertools

import pytest
import torch

from idc.config import BOS, EOS, MASK, PAD
from idc.generate import generate

FORMS = ["causal", "masked"]


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
