"""`kogata bench`: how fast a model is here, what the machine would give at best, and what a token takes."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kogata import __version__
from kogata.app.progress import Meter
from kogata.app.show import columns
from kogata.app.terminal import Screen, human_bytes, print_json, safe_line
from kogata.plan import this_machine

if TYPE_CHECKING:
    from kogata.plan.operations import Operations
    from kogata.run.model import Model
    from kogata.run.speed import Rate, Speed

OK = 0
PROMPT, DEPTH = 512, 4096
"""What is measured where nothing else is said, and as much of it as a model takes."""


def bench(
    name: str, *, depths: Sequence[int] | None, threads: Sequence[int] | None, prompt: int | None, tokens: int,
    repeat: int, as_json: bool, loading: Mapping[str, Any],
) -> int:  # fmt: skip
    """Measure and print.

    Raises:
        BadInput: A number is out of range, or beyond what the model or the memory holds.
        KogataError: The model cannot be run.
    """
    from kogata.app.writing import load_model
    from kogata.ops import dispatch
    from kogata.run.speed import speed

    model = load_model(name, loading)
    if threads is None:
        threads = sorted({1, dispatch.threads()})
    if prompt is None:
        prompt = min(PROMPT, model.longest // 2)
    if depths is None:
        depths = sorted({0, min(DEPTH, model.longest - max(prompt, tokens))})
    with Meter(f"Measuring {safe_line(model.name)}", quiet=as_json) as meter:
        found = speed(
            model, depths=depths, threads=threads, prompt=prompt, tokens=tokens, repeat=repeat, progress=meter
        )  # fmt: skip
    taken = {depth: _taken(model, depth) for depth in depths}
    if as_json:
        print_json(_document(model, found, taken, prompt, tokens, repeat))
    else:
        _print(Screen(), model, found, taken, prompt, tokens, repeat)
    return OK


def _taken(model: Model, depth: int) -> tuple[Operations, Operations]:
    """What a token takes in this model, and in the same one with weights, keys and values of 16 bits."""
    from kogata.plan.operations import count, sixteen_bit
    from kogata.run.speed import matrices

    config = model.packed.config
    return (
        count(config, matrices(model.packed), model.kv, depth=depth),
        count(config, sixteen_bit(config), "bf16", depth=depth),
    )


# --- for scripts ------------------------------------------------------------------------------------------------------


def _document(
    model: Model, found: Sequence[Speed], taken: Mapping[int, tuple[Operations, Operations]], prompt: int, tokens: int,
    repeat: int,
) -> dict[str, Any]:  # fmt: skip
    from kogata.ops import dispatch
    from kogata.plan.energy import SOURCE

    return {
        "kogata": __version__,
        "python": platform.python_version(),
        "hardware": this_machine().to_dict(),
        "isa": dispatch.table().isa,
        "model": {
            "name": model.name,
            "identity": model.packed.identity,
            "bytes": model.packed.nbytes,
            "bytes_by_storage": _storage(model),
            "kv": model.kv,
        },
        "prompt": prompt,
        "tokens": tokens,
        "repeat": repeat,
        "speed": [one.to_dict() for one in found],
        "token": [
            {"depth": depth, "this_model": _operations(ours), "sixteen_bits": _operations(theirs)}
            for depth, (ours, theirs) in taken.items()
        ],
        "energy_source": SOURCE,
    }


def _operations(operations: Operations) -> dict[str, Any]:
    from kogata.plan.energy import energy

    joules = energy(operations)
    return {
        "multiplications": operations.multiplications,
        "additions": operations.additions,
        "weight_bytes": operations.weight_bytes,
        "kv_bytes": operations.kv_bytes,
        "modelled_joules": {
            "multiplications": joules.multiplications, "additions": joules.additions, "memory": joules.memory,
        },
    }  # fmt: skip


def _storage(model: Model) -> dict[str, int]:
    """Bytes of the matrices by how they are stored."""
    kinds: dict[str, int] = {}
    for linear in model.packed.linears.values():
        kinds[linear.kind] = kinds.get(linear.kind, 0) + linear.nbytes
    return kinds


# --- for people -------------------------------------------------------------------------------------------------------


def _print(
    screen: Screen, model: Model, found: Sequence[Speed], taken: Mapping[int, tuple[Operations, Operations]],
    prompt: int, tokens: int, repeat: int,
) -> None:  # fmt: skip
    from kogata.ops import dispatch
    from kogata.plan.energy import SOURCE

    machine = this_machine()
    stored = ", ".join(f"{human_bytes(size)} {kind}" for kind, size in _storage(model).items())
    screen.line((safe_line(model.name), "bold"), f": {stored}; keys and values {model.kv}")
    screen.line(f"{machine.cpu}, {machine.usable_cores} cores, {dispatch.table().isa}")
    screen.line("")
    head = ["threads", "depth", "read/s", "", "of peak", "write/s", "", "of floor", "GB/s"]
    rows = []
    for one in found:
        setting, bandwidth = [str(one.threads), f"{one.depth:,}"], f"{one.bandwidth_gb_s:.1f}"
        rows.append([*setting, *_rate(one.prefill), *_rate(one.decode), bandwidth, ""])
    columns(screen, rows, right=range(len(head)), head=[*head, ""])
    screen.line("")
    screen.flow([(
        f"Tokens a second: {prompt:,} read at once, then {tokens:,} written one by one, after so many (depth) random "
        f"ones; medians of {repeat}, and how far they lie apart. The floor is what reading every weight, key and value "
        "once would allow at the measured bandwidth, the peak what the arithmetic would.",
        "dim",
    )])  # fmt: skip
    depth = max(taken)
    ours, theirs = taken[depth]
    screen.line("")
    screen.line((f"To write a token at depth {depth:,}", "bold"))
    columns(screen, _comparison(ours, theirs), right=(1, 2, 3), head=["", "this model", "at 16 bits", "", ""])
    screen.line("")
    screen.flow([(
        "Counted, without exponentials. Ternary weights add and subtract; that processors do it with multiply-adds is "
        f"not counted. The energy is modelled, all bytes from DRAM ({SOURCE}): only its ratio means something.", "dim",
    )])  # fmt: skip


def _rate(rate: Rate) -> list[str]:
    apart = (rate.most - rate.least) / rate.median / 2
    return [f"{rate.median:,.1f}", f"±{apart:.0%}", f"{rate.share:.0%}"]


def _comparison(ours: Operations, theirs: Operations) -> list[list[str]]:
    """The rows of what a token takes."""
    from kogata.plan.energy import energy

    def row(name: str, of_ours: float, of_theirs: float, shown: Any) -> list[str]:
        ratio = "" if not of_ours or not of_theirs else f"{of_theirs / of_ours:,.1f} x"
        return [name, shown(of_ours) if of_ours else "-", shown(of_theirs) if of_theirs else "-", ratio, ""]

    rows = []
    for what in ("multiplications", "additions"):
        mine, others = getattr(ours, what), getattr(theirs, what)
        rows.append(row(what, sum(mine.values()), sum(others.values()), _amount))
        rows += [row(f"  {kind}", n, others[kind], _amount) for kind, n in mine.items() if n or others[kind]]
    rows.append(row("bytes", ours.nbytes, theirs.nbytes, human_bytes))
    rows.append(row("  of weights", ours.weight_bytes, theirs.weight_bytes, human_bytes))
    rows.append(row("  of keys and values", ours.kv_bytes, theirs.kv_bytes, human_bytes))
    mine, others = energy(ours), energy(theirs)
    rows.append(row("energy, modelled", mine.total, others.total, _joules))
    rows.append(row("  of arithmetic", mine.arithmetic, others.arithmetic, _joules))
    rows.append(row("  of memory", mine.memory, others.memory, _joules))
    return rows


def _amount(n: float) -> str:
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g} {name}"
    return f"{n:.0f}"


def _joules(joules: float) -> str:
    for size, name in ((1e-3, "mJ"), (1e-6, "µJ")):
        if joules >= size:
            return f"{joules / size:.3g} {name}"
    return f"{joules / 1e-9:.3g} nJ"
