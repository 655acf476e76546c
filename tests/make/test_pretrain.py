"""A run of the training script: it learns, goes on where it was stopped as if nothing had been, keeps its schedule."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import shutil
import signal

import numpy as np
import pytest
import torch

from kogata.errors import BadInput
from kogata.make import data, pretrain
from kogata.make.nn.decoder import Shape
from kogata.make.pretrain import Recipe

SHAPE = Shape(vocab_size=300, d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=48)
RECIPE = Recipe(
    SHAPE, tokens=8192, batch=256, length=32, long_length=64, warmup=512, evaluate_every=2048, lr=1e-2
)  # 24 steps, then 8 of the second stage


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "stories_en").mkdir()
    (folder / "books_en").mkdir()
    pages = "\n\n##\n".join(f"The {who} saw a hen.\nIt was big." for who in ("fox", "dog", "cat") * 30)
    told = [{"text": f"# The hen {i}\n\n##\n{pages}\n\n##\n* License: [CC-BY]\n* Text: A. Author\n"} for i in range(40)]
    paragraphs = "\n\n".join(f"“The hen is gone,” said Peter to Wendy, and he counted to {i}." for i in range(120))
    book = {"title": "Peter Pan", "text": "CHAPTER I\n\n" + paragraphs}
    lines = "\n".join(map(json.dumps, told)).encode()
    (folder / "stories_en/stories.jsonl.gz").write_bytes(gzip.compress(lines))
    other = {"title": "Leviathan", "text": "Nature hath made men so equall. " * 99}
    (folder / "books_en/train.jsonl.xz").write_bytes(lzma.compress("\n".join(map(json.dumps, [book, other])).encode()))
    heldout = json.dumps({**book, "title": "Ozma of Oz"}).encode()
    (folder / "books_en/heldout_longdocs.jsonl.gz").write_bytes(gzip.compress(heldout))
    return folder


def _run(texts, out, recipe=RECIPE, **how):
    return pretrain.pretrain(recipe, texts, out, compiled=False, stream=io.StringIO(), **how)


def _log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, _run(texts, out)


def test_it_learns_and_its_schedule_has_two_stages(whole):
    out, training = whole
    steps = [line for line in _log(out) if "loss" in line]
    bits = [line["bits_per_byte"] for line in _log(out) if "bits_per_byte" in line]
    print("loss", steps[0]["loss"], "->", steps[-1]["loss"], "bits per byte", bits)
    assert training.seen == RECIPE.tokens
    assert steps[0]["loss"] == pytest.approx(np.log(300), abs=0.3)
    assert steps[-1]["loss"] < 2.5
    assert bits[-1]["stories"] < bits[0]["stories"] < 8
    rates = [step["lr"] / RECIPE.lr for step in steps]
    assert rates[:2] == [0.5, 1.0]  # warming up
    assert rates[1:25] == [1.0] * 24
    assert np.allclose(np.diff(rates[24:]), -1 / 8)
    assert rates[-1] == 1 / 8


def test_weights_decay_in_the_first_stage_only():
    training = pretrain.Training(RECIPE)
    ids = torch.randint(0, 300, (8, 33))
    for seen, decay in ((0, 0.1), (RECIPE.tokens - 256, 0.0)):
        training.seen = seen
        training.step(training.decoder.loss, ids[:, :-1], ids[:, 1:])
        found = {name: opt.param_groups[0]["weight_decay"] for name, opt in training.optimizers.items()}
        assert found == {"muon": decay, "adamw": 0.0}


def _stopped(texts, out, steps):
    """A run in which Ctrl-C is pressed during a step."""
    step, count = pretrain.Training.step, 0

    def pressed(self, *args):
        nonlocal count
        count += 1
        if count == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain.Training, "step", pressed)
        return _run(texts, out)


def test_ctrl_c_then_the_same_command_gives_the_same_model(texts, whole, tmp_path):
    first = _stopped(texts, tmp_path, 11)
    assert first.seen == 11 * RECIPE.batch
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    second = _run(texts, tmp_path)
    assert second.seen == RECIPE.tokens
    for (name, got), want in zip(
        second.decoder.state_dict().items(), whole[1].decoder.state_dict().values(), strict=True
    ):
        assert torch.equal(got, want), name


def test_a_longer_schedule_starts_before_the_cooldown(texts, whole, tmp_path):
    out, _ = whole
    for name in (
        "tokenizer.json",
        "train.u16",
        "stories.u16",
        "books.u16",
        "checkpoint.safetensors",
        "stage-1.safetensors",
    ):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    longer = Recipe(**{**{f: getattr(RECIPE, f) for f in RECIPE.__slots__}, "tokens": 16384})
    training = _run(texts, tmp_path, longer, minutes=1e-9)  # no step: only takes up
    assert training.seen == 24 * RECIPE.batch
    assert not longer.cools(training.seen)


def test_the_exported_model_alone_is_enough_to_go_on(texts, whole, tmp_path, monkeypatch):
    """bf16 weights, tokenizer and log: the place in the data and in the schedule is what it was."""
    _stopped(texts, tmp_path / "first", 12)
    before = _log(tmp_path / "first")
    shutil.copytree(tmp_path / "first/hf", tmp_path / "second/hf")
    monkeypatch.setattr(pretrain, "train_tokenizer", None)  # the model has its own
    second = _run(texts, tmp_path / "second")
    assert (second.seen, second.since) == (RECIPE.tokens, 12 * RECIPE.batch)
    for name in ("tokenizer.json", "train.u16"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    log = _log(tmp_path / "second")
    assert log[: len(before)] == before
    assert (tmp_path / "second/hf/log.jsonl").read_bytes() == (tmp_path / "second/log.jsonl").read_bytes()
    steps = [line for line in log if "loss" in line]
    assert [line["tokens"] for line in steps] == list(range(256, RECIPE.tokens + 1, 256))
    rates = [line["lr"] / RECIPE.lr for line in steps[12:]]
    assert rates[:2] == [0.5, 1.0]  # the optimizers began anew: warming up
    assert rates[-1] == 1 / 8
    losses = [line["loss"] for line in steps]
    uncut = [line["loss"] for line in _log(whole[0]) if "loss" in line]
    print("loss before and after the cut", losses[11], losses[12], "uncut", uncut[12], "; last", losses[-1], uncut[-1])
    assert losses[12] == pytest.approx(uncut[12], abs=0.05)  # the same batch, weights but for rounding them to bf16
    assert losses[-1] == pytest.approx(uncut[-1], abs=0.5)
    third = pretrain.Training(RECIPE)
    third.load(tmp_path / "second/checkpoint.safetensors")
    assert third.since == second.since


def test_a_checkpoint_of_another_shape_is_refused(texts, whole, tmp_path):
    training = pretrain.Training(
        Recipe(Shape(vocab_size=300, d_model=64, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=48))
    )
    with pytest.raises(BadInput, match="another shape"):
        training.load(whole[0] / "checkpoint.safetensors")


def test_an_interrupted_write_leaves_the_last_checkpoint(whole, tmp_path, monkeypatch):
    _, training = whole
    path = tmp_path / "checkpoint.safetensors"
    training.save(path)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(pretrain, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        training.save(path)
    assert path.read_bytes() == before


def test_texts_become_what_they_should(texts):
    told = data.stories(texts / "stories_en/stories.jsonl.gz", heldout=False)
    assert len(told) == 2 * 38
    assert told[0].startswith(
        "<|bos|><|user|>Tell me the story “The hen 0”.<|end|><|assistant|>The fox saw a hen. It was big."
    )
    assert told[0].endswith("<|end|><|eos|>")
    assert told[38].startswith("<|bos|>The hen 0\n\nThe fox saw a hen. It was big.\n\nThe dog")
    assert not any("License" in text or "Author" in text for text in told)
    heldout = data.stories(texts / "stories_en/stories.jsonl.gz", heldout=True)
    assert [text[:19] for text in heldout] == ["<|bos|>The hen 19\n\n", "<|bos|>The hen 39\n\n"]
    found = data.books(texts / "books_en/train.jsonl.xz", {"Peter Pan"}, 0)
    assert "CHAPTER" not in "".join(found)
    assert "equall" not in "".join(found)
    assert sum(text.count("said Peter") for text in found) == 120


def test_windows_give_each_once_an_epoch_and_the_next_token(tmp_path):
    np.arange(1000, dtype="<u2").tofile(tmp_path / "tokens.u16")
    windows = data.Windows(tmp_path / "tokens.u16", 16, seed=3)
    assert windows.n == 62
    ids, following = windows.batch(0, 62)
    assert torch.equal(ids + 1, following)
    assert sorted(ids[:, 0].tolist()) == list(range(0, 62 * 16, 16))
    again = torch.cat([windows.batch(start, 31)[0] for start in (62, 93)])
    assert sorted(again[:, 0].tolist()) == sorted(ids[:, 0].tolist())
    assert not torch.equal(again, ids)
    assert torch.equal(data.Windows(tmp_path / "tokens.u16", 16, seed=3).batch(62, 31)[0], again[:31])


def test_control_tokens_in_a_text_are_not_learned_as_words():
    tokenizer = data.train_tokenizer(["<|bos|>a hen<|eos|>"] * 9, 300)
    assert [tokenizer.id_to_token(i) for i in range(5)] == list(data.CONTROL)
    assert not any("|>" in token for token in tokenizer.get_vocab() if token not in data.CONTROL)
