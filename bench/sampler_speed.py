"""Choosing the next token at a vocabulary of 128,256: milliseconds a row, one row with one thread and eight with two.

    python bench/sampler_speed.py       # --vocabulary 50304

Sides, in one process and in turn:
    kogata        what the engine calls: `ops.sample.sample`, Python and checks included
    fallback      the same without the extension (one row only)
    numpy         softmax, argpartition for top-k or argsort for top-p, one draw: what one writes in ten lines
    transformers  its logits warpers and torch.multinomial, the path of `generate`
Logits are made, not a model's: standard normal times two, with some tokens raised until they hold their share.
    sure          one token holds 90 %, a hundred others 9.9 %
    open          three hundred tokens hold 97 %
    flat          standard normal alone: an untrained model, the worst case of top-p (95,000 tokens hold 95 %)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from _facts import alternate, require_native, write
from kogata.ops import dispatch
from kogata.ops.sample import Row, sample

KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "greedy, 5 logprobs": {"temperature": 0.0, "logprobs": 5},
    "temperature 0.8": {"temperature": 0.8},
    "top_k 50": {"top_k": 50},
    "top_p 0.95": {"top_p": 0.95},
    "top_k 50, top_p 0.95": {"top_k": 50, "top_p": 0.95},
    "min_p 0.05": {"min_p": 0.05},
}


def logits(kind: str, n_rows: int, n_vocab: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    logits_BV = rng.standard_normal((n_rows, n_vocab)).astype(np.float32)
    shares = {"sure": [(1, 0.9), (100, 0.099)], "open": [(300, 0.97)], "flat": []}[kind]
    if not shares:
        return logits_BV
    logits_BV *= 2
    for logits_V in logits_BV:
        others = np.log(np.exp(logits_V.astype(np.float64)).sum() / (1 - sum(share for _, share in shares)))
        for n, share in shares:
            ids = rng.choice(n_vocab, n, replace=False)
            logits_V[ids] += others + np.log(share) - np.log(np.exp(logits_V[ids].astype(np.float64)).sum())
    return logits_BV


def with_numpy(
    logits_BV: NDArray[np.float32],
    rng: np.random.Generator,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    logprobs: int = 0,
) -> list[int]:
    tokens = []
    for logits_V in logits_BV:
        if logprobs:
            shifted_V = logits_V - logits_V.max()
            logprobs_V = shifted_V - np.log(np.exp(shifted_V).sum())
            best = np.argpartition(logprobs_V, -logprobs)[-logprobs:]
            best[np.argsort(-logprobs_V[best])]
        if temperature == 0:
            tokens.append(int(np.argmax(logits_V)))
            continue
        z_V = logits_V / np.float32(temperature)
        ids = np.argpartition(z_V, -top_k)[-top_k:] if top_k else np.arange(len(z_V))
        weights = np.exp(z_V[ids] - z_V.max())
        if top_p < 1:
            order = np.argsort(-weights)
            ids, weights = ids[order], weights[order]
            sums = np.cumsum(weights)
            kept = int(np.searchsorted(sums, top_p * sums[-1])) + 1
            ids, weights = ids[:kept], weights[:kept]
        if min_p:
            kept_mask = weights >= min_p * weights.max()
            ids, weights = ids[kept_mask], weights[kept_mask]
        sums = np.cumsum(weights, dtype=np.float64)
        tokens.append(int(ids[np.searchsorted(sums, rng.random() * sums[-1])]))
    return tokens


def with_transformers(logits_BV: NDArray[np.float32], asked: dict[str, Any]) -> Callable[[], object]:
    import torch
    from transformers.generation import logits_process

    scores_BV = torch.from_numpy(logits_BV)
    warpers: list[Any] = []
    if asked.get("temperature", 1.0) not in (0.0, 1.0):
        warpers.append(logits_process.TemperatureLogitsWarper(asked["temperature"]))
    if "top_k" in asked:
        warpers.append(logits_process.TopKLogitsWarper(asked["top_k"]))
    if "top_p" in asked:
        warpers.append(logits_process.TopPLogitsWarper(asked["top_p"]))
    if "min_p" in asked:
        warpers.append(logits_process.MinPLogitsWarper(asked["min_p"]))

    def run() -> object:
        with torch.no_grad():
            if asked.get("logprobs"):
                scores_BV.log_softmax(-1).topk(asked["logprobs"])
            if asked.get("temperature") == 0:
                return scores_BV.argmax(-1)
            warped_BV = scores_BV
            for warper in warpers:
                warped_BV = warper(None, warped_BV)
            return torch.multinomial(warped_BV.softmax(-1), 1)

    return run


def measure_batch(kind: str, n_rows: int, n_vocab: int, rounds: int) -> dict[str, dict[str, float]]:
    logits_BV = logits(kind, n_rows, n_vocab)
    rng, positions_B = np.random.default_rng(1), np.arange(n_rows)
    table = {}
    for name, asked in KINDS.items():
        rows = [Row(seed=b, **asked) for b in range(n_rows)]

        def ours(rows: list[Row] = rows) -> object:
            return sample(logits_BV, rows, positions_B)

        def fallback(rows: list[Row] = rows) -> object:
            with dispatch.use("fallback"):
                return sample(logits_BV, rows, positions_B)

        sides: dict[str, Callable[[], object]] = {
            "kogata": ours,
            "numpy": lambda asked=asked: with_numpy(logits_BV, rng, **asked),
            "transformers": with_transformers(logits_BV, asked),
        }
        if n_rows == 1:
            sides["fallback"] = fallback
        table[name] = {side: 1e3 * value / n_rows for side, value in alternate(sides, rounds).items()}
        figures = "".join(f"{value:14.3f}" for value in table[name].values())
        print(f"{kind:6}{n_rows:3}  {name:22}{figures}", flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    require_native()
    import torch

    results = []
    sides = "".join(f"{side:>14}" for side in ("kogata", "numpy", "transformers", "fallback"))
    print(f"ms a row{'':25}{sides}")
    for n_rows, threads in ((1, 1), (8, 2)):
        dispatch.set_threads(threads)
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            for kind in ("sure", "open", "flat"):
                table = measure_batch(kind, n_rows, arguments.vocabulary, arguments.rounds)
                results.append({"rows": n_rows, "threads": threads, "logits": kind, "ms_a_row": table})
    print("\nwrote", write("sampler_speed", {"vocabulary": arguments.vocabulary, "results": results}))


if __name__ == "__main__":
    main()
