"""Generation: the same answers in any company, the ends of answers, and memory that is given and taken back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kogata.errors import BadInput, Busy, ModelError
from kogata.run.cache import Sequence as CachedText
from kogata.run.decoder import Decoder, Step
from kogata.run.engine import Answer, Engine
from kogata.run.sampling import SamplingParams
from kogata.weights import DecoderCheckpoint, load_decoder
from kogata.weights.packed import pack_decoder

Tiny = Callable[..., tuple[Path, Any]]


@pytest.fixture
def engine(tiny_decoder: Tiny) -> Callable[..., Engine]:
    directory, _ = tiny_decoder("bitnet", hidden_size=64, max_position_embeddings=256)
    checkpoint = load_decoder(directory)
    assert isinstance(checkpoint, DecoderCheckpoint)
    decoder = Decoder(pack_decoder(checkpoint))

    def make(**settings: Any) -> Engine:
        return Engine(decoder, checkpoint.tokenizer, **settings)

    return make


def prompt(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, n).astype(np.int32)


def finished(engine: Engine, answers: list[Answer]) -> list[str]:
    """Their whole texts."""
    texts = [""] * len(answers)
    for answer, piece in engine.run(answers):
        texts[answers.index(answer)] += piece.text
    return texts


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_sixteen_at_once_are_what_each_is_alone(engine: Callable[..., Engine], temperature: float) -> None:
    together = engine(n_tokens=16 * 192)
    params = [
        SamplingParams(temperature=temperature, seed=n, max_tokens=8 + n, logprobs=3, presence_penalty=0.5)
        for n in range(16)
    ]
    prompts = [prompt(n, 1 + 9 * n) for n in range(16)]
    answers = [together.submit(ids, one)[0] for ids, one in zip(prompts, params, strict=True)]
    seen: dict[int, list[Any]] = {n: [] for n in range(16)}
    for answer, piece in together.run(answers):
        seen[answers.index(answer)].append(piece)
    for n in range(16):
        alone = engine(n_tokens=256)
        (answer,) = alone.submit(prompts[n], params[n])
        assert [piece for _, piece in alone.run([answer])] == seen[n]
        assert answer.ids == answers[n].ids
        assert answer.finish == "length"
        assert len(answer.ids) == 8 + n


def test_several_answers_to_one_prompt_differ_and_repeat(engine: Callable[..., Engine]) -> None:
    params = SamplingParams(n=4, seed=5, max_tokens=12)
    first, again = engine(n_tokens=2000), engine(n_tokens=2000)
    answers = first.submit(prompt(0, 20), params)
    finished(first, answers)
    assert len({tuple(answer.ids) for answer in answers}) == 4
    others = again.submit(prompt(0, 20), params)
    finished(again, others)
    assert [answer.ids for answer in others] == [answer.ids for answer in answers]


def test_an_answer_ends_at_a_stop_token_or_string(engine: Callable[..., Engine]) -> None:
    free = engine()
    (answer,) = free.submit(prompt(3, 10), SamplingParams(temperature=0, max_tokens=30))
    (text,) = finished(free, [answer])
    token, at = answer.ids[5], answer.ids.index(answer.ids[5])
    stopped = engine(stop_ids=[token])
    (ended,) = stopped.submit(prompt(3, 10), SamplingParams(temperature=0, max_tokens=30))
    finished(stopped, [ended])
    assert (ended.ids, ended.finish) == (answer.ids[: at + 1], "stop")
    (ignoring,) = stopped.submit(prompt(3, 10), SamplingParams(temperature=0, max_tokens=30, ignore_eos=True))
    finished(stopped, [ignoring])
    assert ignoring.ids == answer.ids
    needle = text[4:7]
    (cut,) = free.submit(prompt(3, 10), SamplingParams(temperature=0, max_tokens=30, stop=[needle]))
    assert finished(free, [cut]) == [text[: text.index(needle)]]
    assert cut.finish == "stop"


def test_pieces_are_the_text_of_the_tokens(engine: Callable[..., Engine]) -> None:
    one = engine()
    (answer,) = one.submit(prompt(1, 10), SamplingParams(seed=1, max_tokens=60))
    (text,) = finished(one, [answer])
    said = b"".join(b"" if id_ in one.tokenizer.special_ids else one.tokenizer.token_bytes(id_) for id_ in answer.ids)
    assert text == said.decode(errors="replace")


def test_what_cannot_fit_is_refused_with_the_numbers(engine: Callable[..., Engine]) -> None:
    small = engine(n_tokens=64)
    for ids, params, said in (
        (prompt(0, 256), SamplingParams(), "256 tokens; .* at most 256"),
        (prompt(0, 200), SamplingParams(max_tokens=57), "200 tokens and an answer of up to 57"),
        (prompt(0, 60), SamplingParams(max_tokens=10), "60 tokens and an answer of up to 10 need .* MB"),
        (prompt(0, 64), SamplingParams(), "64 tokens and an answer of up to 1 need"),
        (prompt(0, 0), SamplingParams(), "no tokens"),
        (np.array([300]), SamplingParams(), "outside"),
        (prompt(0, 5), SamplingParams(logit_bias={300: 1.0}), "300"),
    ):
        with pytest.raises(BadInput, match=said):
            small.submit(ids, params)
    assert small.idle


def test_answers_wait_for_memory_in_their_order(engine: Callable[..., Engine]) -> None:
    tight = engine(n_tokens=128)  # two at a time
    answers = [tight.submit(prompt(n, 20), SamplingParams(temperature=0, max_tokens=20))[0] for n in range(5)]
    order = []
    for answer, piece in tight.run(answers):
        if piece.finish:
            order.append(answers.index(answer))
    assert order == [0, 1, 2, 3, 4]
    assert tight.idle
    (alone,) = tight.submit(prompt(4, 20), SamplingParams(temperature=0, max_tokens=20))
    finished(tight, [alone])
    assert alone.ids == answers[4].ids, "a page that was used before is as good as a new one"


def test_leaving_frees_memory(engine: Callable[..., Engine]) -> None:
    tight = engine(n_tokens=64)
    (gone,) = tight.submit(prompt(0, 20), SamplingParams(max_tokens=40, seed=0))
    (waits,) = tight.submit(prompt(1, 20), SamplingParams(max_tokens=5, seed=0))
    for _ in range(3):
        tight.step()
    assert not waits.ids
    tight.drop(gone)
    tight.step()
    assert waits.ids
    tight.drop(waits)
    assert tight.idle


def test_a_model_that_breaks_ends_only_its_own_answers(engine: Callable[..., Engine]) -> None:
    broken = engine(n_tokens=512)
    fine, bad = (broken.submit(prompt(n, 5), SamplingParams(temperature=0, max_tokens=4))[0] for n in range(2))
    forward = broken.decoder.forward

    def poisoned(*arguments: Any) -> Any:
        logits = forward(*arguments)
        logits[-1] = np.nan
        return logits

    broken.decoder.forward = poisoned  # type: ignore[method-assign]
    try:
        broken.step()
    finally:
        del broken.decoder.forward
    assert isinstance(bad.error, ModelError)
    assert "NaN" in str(bad.error)
    finished(broken, [fine])
    assert fine.finish == "length"


class OnlyEven:
    """Tokens of even number, six of them; then it cannot tell."""

    def __init__(self, most: int = 6, fails_at: int | None = None) -> None:
        self.most, self.fails_at, self.seen = most, fails_at, list[int]()

    @property
    def over(self) -> bool:
        return len(self.seen) >= self.most

    def fork(self) -> OnlyEven:
        return OnlyEven(self.most, self.fails_at)

    def fill(self, mask_W: np.ndarray) -> None:
        if len(self.seen) == self.fails_at:
            raise ModelError("The grammar is lost.")
        mask_W[:] = 0x55555555

    def accept(self, token: int) -> None:
        self.seen.append(token)


def test_a_constraint_holds_for_its_answer_alone(engine: Callable[..., Engine]) -> None:
    both = engine(n_tokens=2000)
    params = SamplingParams(seed=3, max_tokens=20)
    held = both.submit(prompt(1, 20), SamplingParams(seed=3, max_tokens=20, n=2), constraint=OnlyEven())
    (free,) = both.submit(prompt(1, 20), params)
    finished(both, [*held, free])
    for answer in held:
        assert [token % 2 for token in answer.ids] == [0] * 6
        assert answer.finish == "stop"
    assert any(token % 2 for token in free.ids)
    other = engine()
    (alone,) = other.submit(prompt(1, 20), params)
    finished(other, [alone])
    assert alone.ids == free.ids


def test_a_constraint_that_fails_ends_its_answer_alone(engine: Callable[..., Engine]) -> None:
    both = engine(n_tokens=2000)
    params = SamplingParams(seed=3, max_tokens=20, ignore_eos=True)
    (lost,) = both.submit(prompt(1, 20), params, constraint=OnlyEven(fails_at=3))
    (free,) = both.submit(prompt(2, 20), params)
    while not (lost.over and free.over):
        both.step()
    assert (len(lost.ids), str(lost.error)) == (3, "The grammar is lost.")
    assert (len(free.ids), free.error, both.idle) == (20, None, True)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 150])
def test_a_prompts_tokens_are_logged_as_the_model_sees_them(engine: Callable[..., Engine], n: int) -> None:
    one = engine()
    ids = prompt(4, n)
    (answer,) = one.submit(ids, SamplingParams(temperature=0, max_tokens=1, logprobs=0), prompt_logprobs=2)
    (beside,) = one.submit(prompt(5, 40), SamplingParams(seed=1, max_tokens=3))
    finished(one, [answer, beside])
    text = CachedText()
    pool = one.decoder.pool(256)
    pool.reserve(text, n)
    logits_TV = one.decoder.forward(Step([text], [ids], [n]), pool).astype(np.float64)
    logged_TV = logits_TV - np.log(np.exp(logits_TV - logits_TV.max(1, keepdims=True)).sum(1, keepdims=True))
    logged_TV -= logits_TV.max(1, keepdims=True)
    assert answer.prompt_logprobs[0] is None
    assert len(answer.prompt_logprobs) == n
    for at, found in enumerate(answer.prompt_logprobs[1:], 1):
        assert found is not None
        assert found.id == ids[at]
        np.testing.assert_allclose(found.logprob, logged_TV[at - 1, ids[at]], atol=1e-4)
        best = np.sort(logged_TV[at - 1])[-2:][::-1]
        np.testing.assert_allclose([value for _, value in found.top], best, atol=1e-4)


def test_more_than_may_wait_is_refused_and_what_waits_goes_on(engine: Callable[..., Engine]) -> None:
    one = engine(n_tokens=128, most_waiting=3)
    params = SamplingParams(seed=1, max_tokens=4)
    waiting = [one.submit(prompt(n, 100), params)[0] for n in range(3)]
    with pytest.raises(Busy, match="3 answers wait"):
        one.submit(prompt(9, 10), params)
    finished(one, waiting)
    assert [len(answer.ids) for answer in waiting] == [4, 4, 4]
    assert one.submit(prompt(9, 10), params)
