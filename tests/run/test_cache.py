"""The cache of keys and values: what is reused, what is thrown out, and that no answer differs by a bit for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached_texts import assert_no_page_is_lost, every_model, greedy, prompt, said

from kogata.run.cache import PageStore, pool_bytes
from kogata.run.engine import Answer, Engine
from kogata.run.sampling import SamplingParams


@every_model
@pytest.mark.parametrize("kv", ["f32", "bf16", "int8"])
@pytest.mark.parametrize("n", [1, 10, 63, 64, 65, 127, 128, 129, 300])
def test_a_conversation_goes_on_from_its_end(model: Callable[..., Engine], kv: str, n: int) -> None:
    """Turns that end within a page, at its edge, and behind it."""
    one = model(kv=kv)
    ids, known = prompt(n, n), 0
    for turn in range(3):
        answer, pieces = said(one, ids, greedy(20 + turn))
        assert pieces == said(model(kv=kv), ids, greedy(20 + turn))[1]
        assert answer.reused == known, f"turn {turn}"
        known = answer.length - 1  # the last token of a turn was chosen, not read
        ids = np.concatenate([answer.tokens(0, answer.length), prompt(100 + turn, 7)])
    assert_no_page_is_lost(one)


@every_model
@pytest.mark.parametrize("n", [1, 2, 64, 65, 129, 200])
def test_the_same_prompt_again_computes_one_token(model: Callable[..., Engine], n: int) -> None:
    one = model()
    _, first = said(one, prompt(n, n), greedy(5))
    again, second = said(one, prompt(n, n), greedy(5))
    assert (second, again.reused) == (first, n - 1)
    assert_no_page_is_lost(one)


@every_model
def test_salts_and_other_beginnings_share_nothing(model: Callable[..., Engine]) -> None:
    one, ids = model(), prompt(0, 200)
    said(one, ids, greedy(5), salt=b"a")
    assert said(one, ids, greedy(5), salt=b"b")[0].reused == 0
    assert said(one, ids, greedy(5))[0].reused == 0
    assert said(one, ids, greedy(5), salt=b"a")[0].reused == 199
    other = ids.copy()
    other[0] += 1
    assert said(one, other, greedy(5), salt=b"a")[0].reused == 0


@pytest.mark.parametrize("model", ["bitnet"], indirect=True)
def test_texts_that_part_within_a_page_share_what_is_before(model: Callable[..., Engine]) -> None:
    one, ids = model(), prompt(0, 200)
    said(one, ids, greedy(5))
    other = ids.copy()
    other[150] = (other[150] + 1) % 256
    answer, pieces = said(one, other, greedy(5))
    assert answer.reused == 150
    assert pieces == said(model(), other, greedy(5))[1]


@every_model
def test_where_the_prompt_is_logged_all_of_it_is_computed(model: Callable[..., Engine]) -> None:
    one, ids = model(), prompt(0, 150)
    first, _ = said(one, ids, greedy(3), prompt_logprobs=1)
    again, _ = said(one, ids, greedy(3), prompt_logprobs=1)
    assert again.reused == 0
    assert len(again.prompt_logprobs) == 150
    assert again.prompt_logprobs == first.prompt_logprobs


@every_model
def test_several_answers_read_their_prompt_once(model: Callable[..., Engine]) -> None:
    one, ids = model(n_tokens=2048), prompt(0, 600)
    params = SamplingParams(n=4, seed=3, max_tokens=30, ignore_eos=True, logprobs=1)
    answers = one.submit(ids, params)
    rows = []
    forward = one.decoder.forward
    one.decoder.forward = lambda step, pool: (rows.append(sum(map(len, step.ids))), forward(step, pool))[1]  # type: ignore
    try:
        pieces: list[list[Any]] = [[], [], [], []]
        for answer, piece in one.run(answers):
            pieces[answers.index(answer)].append(piece)
    finally:
        del one.decoder.forward
    print("rows of each step:", rows)
    assert sum(rows) == 600 + 3 + 4 * 29
    assert [answer.reused for answer in answers] == [0, 599, 599, 599]
    assert len({tuple(answer.ids) for answer in answers}) == 4
    alone = model(n_tokens=2048)
    _, first = said(alone, ids, SamplingParams(seed=3, max_tokens=30, ignore_eos=True, logprobs=1))
    assert pieces[0] == first
    again = alone.submit(ids, params)
    while not alone.idle:
        alone.step()
    assert [list(answer.pieces) for answer in again] == pieces
    assert_no_page_is_lost(one)


@every_model
def test_texts_step_back_where_memory_is_short_and_nobody_sees_it(model: Callable[..., Engine]) -> None:
    tight = model(n_tokens=320)
    prompts = [prompt(n, 40) for n in range(6)]
    answers = [tight.submit(ids, greedy(200), prompt_logprobs=0)[0] for ids in prompts]
    stepped_back, order = 0, []
    seen: list[list[Any]] = [[] for _ in answers]
    while not tight.idle:
        running = set(map(id, tight._running))
        tight.step()
        stepped_back += len(running & set(map(id, tight._waiting)))
        for n, answer in enumerate(answers):
            while answer.pieces:
                seen[n].append(answer.pieces.popleft())
                if seen[n][-1].finish:
                    order.append(n)
    print("stepped back:", stepped_back, "ended:", order)
    assert stepped_back > 0
    assert order == sorted(order)
    for n, ids in enumerate(prompts):
        alone, pieces = said(model(), ids, greedy(200), prompt_logprobs=0)
        assert (seen[n], answers[n].prompt_logprobs) == (pieces, alone.prompt_logprobs)
    assert_no_page_is_lost(tight)


@pytest.mark.parametrize("model", ["gemma3"], indirect=True)
def test_a_window_holds_only_its_pages(model: Callable[..., Engine]) -> None:
    one = model()
    window, full = one._pool.window, one._pool.full
    assert window is not None
    (answer,) = one.submit(prompt(0, 700), greedy(200))
    most = 0
    for _ in one.run([answer]):
        if len(answer.ids) > 1:
            most = max(most, len(answer.cached.window) - answer.cached.first)
    print("pages of the window:", most, "of a text of", len(answer.ids) + 700)
    assert most <= 3  # ceil((70 + 63) / 64), and the token before
    assert full.n_pages == 16
    # A model as large as Gemma 3 in the small: 32 k tokens in five of six layers are held as a few hundred.
    large = one.decoder.pool(32768)
    assert large.window is not None
    taken = pool_bytes(one.decoder.config, "bf16", 512)
    assert taken < 0.5 * 512 * (large.full.nbytes_of_page + large.window.nbytes_of_page)


@every_model
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("disk", [False, True])
def test_any_order_of_coming_going_and_leaving(
    model: Callable[..., Engine], seed: int, disk: bool, tmp_path: Path
) -> None:
    """Random schedules in little memory: whoever stays to the end says what it says alone."""
    random = np.random.default_rng(seed)
    store = PageStore(tmp_path / "pages", 3_000_000) if disk else None
    one = model(n_tokens=int(random.choice([640, 1024, 2048])), kv=str(random.choice(["bf16", "int8"])), store=store)
    fresh = lambda: model(kv=one._pool.kind)  # noqa: E731
    texts: list[np.ndarray] = [prompt(0, 130)]
    asked: list[tuple[Answer, np.ndarray, SamplingParams, bool]] = []
    left: set[int] = set()
    for _ in range(60):
        match random.choice(["submit", "step", "step", "step", "leave"]):
            case "submit" if len(asked) < 14:
                base = texts[random.integers(len(texts))]
                cut = base[: random.integers(0, min(len(base), 350) + 1)]
                ids = np.concatenate([cut, prompt(int(random.integers(1000)), int(random.integers(1, 150)))])
                params = SamplingParams(
                    seed=int(random.integers(9)), temperature=float(random.choice([0, 0.8])), logprobs=1,
                    max_tokens=int(random.integers(1, 80)), n=int(random.choice([1, 1, 3])),
                )  # fmt: skip
                logged = bool(random.random() < 0.2)
                settings = {"prompt_logprobs": 0 if logged else None, "salt": bytes([random.integers(2)])}
                asked += [(answer, ids, params, logged) for answer in one.submit(ids, params, **settings)]
                texts.append(ids)
            case "leave" if asked and random.random() < 0.3:
                gone = int(random.integers(len(asked)))
                left.add(gone)
                one.drop(asked[gone][0])
            case _:
                one.step()
                texts += [answer.tokens(0, answer.length) for answer, *_ in asked if answer.over][-3:]
    while not one.idle:
        one.step()
    print("asked:", len(asked), "left:", len(left), "reused:", [answer.reused for answer, *_ in asked])
    for n, (answer, ids, params, logged) in enumerate(asked):
        if n in left and not answer.over:
            continue
        alone = fresh()
        own = alone.submit(ids, params, prompt_logprobs=0 if logged else None)[answer.choice]
        for _ in alone.run([own]):
            pass
        assert answer.ids == own.ids, f"answer {n}"
        assert answer.prompt_logprobs == own.prompt_logprobs
    assert_no_page_is_lost(one)
