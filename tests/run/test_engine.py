"""Generation: the same answers in any company, the ends of answers, and memory that is given and taken back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kogata.errors import BadInput, ModelError
from kogata.run.decoder import Decoder
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
