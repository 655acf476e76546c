"""The ``kogata`` command: options in, calls, lines out, errors as sentences.

Nothing heavy is imported here: ``kogata --help`` takes a few hundredths of a second, and each command imports what it
needs. Exit codes: 0 done (or found), 1 failed, 2 bad input, 3 nothing found, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from kogata import __version__
from kogata.errors import BadInput, KogataError

OK, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130
BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended

_MAX_STDIN = 4_000_000  # bytes of a query read from stdin; far above what is accepted

F = TypeVar("F", bound=Callable[..., Any])


class _InOrder(click.Group):
    """A group whose help lists the commands as they are defined: in the order people need them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class _Keys(click.types.StringParamType):
    """API keys: with commas between in the environment, where a key may have spaces in it."""

    envvar_list_splitter = ","


class _Size(click.ParamType[int]):
    """An amount of memory or disk, in bytes: ``4GB``, ``512MB``; with an i between in powers of 1024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([kmgt])(i?)b?", value.strip(), re.IGNORECASE)
        if found is None:
            self.fail(f"{value[:80]!r} is no size; 4GB, 1.5GB, 512MB and 2GiB are.", param, ctx)
        n_bytes = int(float(found[1]) * (1024 if found[3] else 1000) ** ("kmgt".index(found[2].lower()) + 1))
        return min(n_bytes, 1 << 62)  # more than there is anywhere, and no more than a message holds


class _Numbers(click.ParamType[list[int]]):
    """Whole numbers with commas between: ``0,4096``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", value, re.ASCII):
            self.fail(f"{value[:80]!r} is no list of whole numbers; 0,4096 is.", param, ctx)
        return [int(number) for number in value.split(",")]


def _index_option(command: F) -> F:
    return click.option(
        "--index",
        "place",
        metavar="FILE",
        help="The index file. Default: $KOGATA_INDEX, or one in your data folder (kogata doctor shows it).",
    )(command)


def _json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")(command)


def _model_options(command: F) -> F:
    for option in (
        click.option(
            "--threads", type=int, metavar="N", help="Threads to use. Default: the cores this process may use."
        ),
        click.option(
            "--precision",
            type=click.Choice(["auto", "f32", "bf16", "int8", "int4"]),
            default="auto",
            show_default=True,
            help="Arithmetic of the embedder.",
        ),
        click.option(
            "--model",
            metavar="NAME",
            help="Embedder: a folder or a Hugging Face id. Default: the index's own, or the built-in one.",
        ),
    ):
        command = option(command)
    return command


def _search_options(command: F) -> F:
    for option in (
        click.option("--exact", is_flag=True, help="Compare with every vector in full instead of a shortlist."),
        click.option(
            "--type", "kinds", multiple=True, metavar="TYPE", help="Only this type: pdf, md, html, … (repeat)."
        ),
        click.option("--path", "paths", multiple=True, metavar="PATH", help="Only this file, folder or glob (repeat)."),
    ):
        command = option(command)
    return command


_LOADING = ("kv", "context", "quantise", "memory", "cache_dir", "cache_size")


def _quantise_option(whose: str = "") -> Callable[[F], F]:
    return click.option(
        "--quantize",
        "quantise",
        type=click.Choice(["auto", "f32", "bf16", "int8", "int4"]),
        default="auto",
        show_default=True,
        help=f"Storage of {whose}weights that are not ternary.",
    )


def _kv_option(whose: str = "") -> Callable[[F], F]:
    return click.option(
        "--kv",
        type=click.Choice(["bf16", "int8", "f32"]),
        default="bf16",
        show_default=True,
        help=f"Storage of {whose}keys and values; int8 takes half the memory.",
    )


def _memory_option(whose: str = "") -> Callable[[F], F]:
    return click.option(
        "--memory",
        type=_Size(),
        metavar="SIZE",
        help=f"Most that {whose}weights, keys and values take together, as 4GB. Default: half of what is free, for "
        "keys and values.",
    )


def _loading_options(whose: str = "") -> Callable[[F], F]:
    """How a model that writes is loaded; the help says whose keys and weights these are."""

    def add(command: F) -> F:
        for option in (
            click.option(
                "--cache-size",
                type=_Size(),
                default="10GB",
                show_default=True,
                metavar="SIZE",
                help="Most that the --cache-dir takes; what was not used for longest goes first.",
            ),
            click.option(
                "--cache-dir",
                metavar="DIR",
                help="Keep in this folder what was read of prompts: one that begins alike starts at once, also after a "
                "restart.",
            ),
            _quantise_option(whose),
            click.option(
                "--context", type=int, metavar="N", help="Most tokens of a text. Default: what the model takes."
            ),
            _kv_option(whose),
            _memory_option(whose),
        ):
            command = option(command)
        return command

    return add


def _writing_options(command: F) -> F:
    for option in (
        click.option("--threads", type=int, metavar="N", help="Threads to use. Default: the cores there are."),
        click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text (repeat)."),
        click.option("--seed", type=int, metavar="N", help="The same seed gives the same answer."),
        click.option("--repetition-penalty", type=float, default=1.0, metavar="X", help="Above 1: repeat less."),
        click.option(
            "--min-p", type=float, default=0.0, metavar="X", help="Leave out tokens far less likely than the best."
        ),
        click.option(
            "--top-p", type=float, default=1.0, metavar="X", help="Choose from the fewest tokens that hold this share."
        ),
        click.option("--top-k", type=int, default=0, metavar="N", help="Choose from the N likeliest tokens; 0: all."),
        click.option(
            "--temperature",
            type=float,
            default=0.8,
            show_default=True,
            metavar="X",
            help="0: always the likeliest token.",
        ),
        click.option(
            "--max-tokens", type=int, metavar="N", help="Most tokens of an answer. Default: what the context holds."
        ),
        click.option("--system", metavar="TEXT", help="What the model is told before the conversation."),
    ):
        command = option(command)
    return command


def _split_writing(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a writing command, those of loading and of sampling apart."""
    loading = {name: options.pop(name) for name in (*_LOADING, "threads")}
    names = ("stop", "seed", "repetition_penalty", "min_p", "top_p", "top_k", "temperature", "max_tokens")
    sampling = {name: options.pop(name) for name in names}
    return {**options, "loading": loading, "sampling": sampling}


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Documentation: the docs folder of the source. Exit codes: 0 done, 1 failed, 2 bad input, 3 nothing found.",
)
@click.version_option(__version__, prog_name="kogata", message="%(prog)s %(version)s")
def cli() -> None:
    """Private answers over your own documents, on your own hardware.

    \b
      kogata index ~/papers
      kogata ask "How much less does NSA read at 64k tokens?"
      kogata serve ~/papers

    Nothing leaves this machine.
    """


@cli.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave these out, as in .gitignore (repeat).")
@click.option("--watch", is_flag=True, help="Stay, and index what changes until Ctrl-C.")
@click.option("--rebuild", is_flag=True, help="Make all vectors anew, with another --model for example.")
@_model_options
@_index_option
@_json_option
def index(paths: tuple[str, ...], **options: Any) -> int:
    """Index folders and files, or bring what is known up to date.

    Documents can be searched by words as soon as they are read; meaning follows. Files that have not changed are
    skipped, so running it again is quick, and stopping it at any time loses nothing that was done.

    \b
    Examples:
      kogata index ~/papers ~/notes
      kogata index ~/src --exclude 'build/' --exclude '*.min.js'
      kogata index                  bring everything up to date
      kogata index --watch          and keep it so
      kogata index --rebuild --model sentence-transformers/all-MiniLM-L6-v2

    What was not indexed, and why: kogata status --skipped.
    """
    from kogata.app import commands

    return commands.index(paths, **options)


@cli.command()
@click.argument("query", nargs=-1, required=True)
@click.option("-k", "k", type=int, default=10, show_default=True, metavar="N", help="How many passages.")
@click.option("--words", is_flag=True, help="Search by words only (BM25); needs no model.")
@click.option("--meaning", is_flag=True, help="Search by meaning only.")
@_search_options
@_model_options
@_index_option
@_json_option
def search(query: tuple[str, ...], **options: Any) -> int:
    """Find the passages that fit a query best, by words and by meaning.

    \b
    Examples:
      kogata search tide gauge
      kogata search 潮位の観測 --type pdf -k 5
      kogata search --words '"sea level"' --path ~/papers
      echo "a long question" | kogata search -

    Exit code 3: nothing found.
    """
    from kogata.app import commands

    return commands.search(_query(query), where=_where(options), **options)


@cli.command()
@click.argument("query", nargs=-1, required=True)
@click.option(
    "-k", "k", type=int, default=10, show_default=True, metavar="N", help="Passages to look for an answer in."
)
@click.option(
    "--writer", metavar="MODEL", help="Let this model write the answer, as in kogata run; it names its sources."
)
@click.option("--context", type=int, metavar="N", help="Most tokens that the writer reads. Default: what it takes.")
@_memory_option("the writer's ")
@click.option("--temperature", type=float, metavar="X", help="Of the writer. Default 0: always the likeliest word.")
@click.option("--max-tokens", type=int, metavar="N", help="Most tokens the writer writes. Default: 512.")
@click.option("--seed", type=int, metavar="N", help="With a temperature: the same seed gives the same answer.")
@_search_options
@_model_options
@_index_option
@_json_option
def ask(query: tuple[str, ...], **options: Any) -> int:
    """Answer a question with sentences from your documents.

    Each sentence comes with its source: file, page or heading, and what stands around it. With --writer a model
    writes the answer from the passages instead, and names them.

    \b
    Examples:
      kogata ask "Where does Kogata keep its index?"
      kogata ask 満潮は一日に何回ありますか --path ~/papers
      kogata ask --writer bitnet-2b "What do the two leases have in common?"
      kogata ask --json "Who signed the contract?" | jq .citations

    Exit code 3: not found in these documents.
    """
    from kogata.app import commands

    loading = {name: options.pop(name) for name in ("context", "memory")}
    sampling = {name: options.pop(name) for name in ("temperature", "max_tokens", "seed")}
    return commands.ask(_query(query), where=_where(options), loading=loading, sampling=sampling, **options)


@cli.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8420, show_default=True, help="0: any that is free.")
@click.option(
    "--api-key",
    type=_Keys(),
    multiple=True,
    envvar="KOGATA_API_KEY",
    metavar="KEY",
    help="What callers must send (repeat for several; in KOGATA_API_KEY with commas between). Beyond loopback, or with "
    "--allow-host, Kogata makes one where none is given.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Another name it is called by, by a proxy say; asks for a key (repeat).",
)
@click.option("--allow-origin", multiple=True, metavar="ORIGIN", help="Another page that may call it (repeat).")
@click.option(
    "--max-upload", type=click.IntRange(1), default=500, show_default=True, metavar="MB", help="Largest upload."
)
@click.option(
    "--max-requests",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    metavar="N",
    help="Requests at once; more are told to come again.",
)
@click.option(
    "--log",
    type=click.Choice(["auto", "json", "text", "off"]),
    default="auto",
    show_default=True,
    help="A line a request on stderr. auto: off on a terminal, else json.",
)
@click.option("--writer", metavar="MODEL", help="Let this model answer chats and continue texts, as in kogata run.")
@_loading_options("the writer's ")
@_model_options
@_index_option
def serve(paths: tuple[str, ...], **options: Any) -> int:
    """Serve a web page and an OpenAI-compatible API over documents.

    Opens at once; the paths are indexed behind it and kept current. Without a path it serves what is indexed already,
    and where that is nothing, Kogata's own documentation.

    \b
    Examples:
      kogata serve ~/papers
      kogata serve --port 9000
      kogata serve --writer bitnet-2b    /v1/chat/completions as well
      kogata serve --host 0.0.0.0        for a phone in the same network: open the printed address
      curl http://127.0.0.1:8420/v1/ask -H 'Content-Type: application/json' -d '{"query": "what is a tide"}'

    Nothing beyond this machine can call it unless --host says so, and then only with the key.
    """
    from kogata.app.serve import command

    writing = {name: options.pop(name) for name in _LOADING}
    return command.run(paths, writing=writing, **options)


@cli.command()
@click.argument("model", default="tiny")
@click.argument("prompt", nargs=-1)
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="Put this file before the prompt (repeat).")
@click.option("--raw", is_flag=True, help="Continue the text as it is, also where the model knows conversations.")
@_writing_options
@_loading_options()
@_json_option
def run(model: str, prompt: tuple[str, ...], files: tuple[str, ...], **options: Any) -> int:
    """Let a model answer or continue a text.

    MODEL is a short name (kogata models lists them), a folder in Hugging Face's layout, a GGUF file or a hub id: Llama,
    Qwen 2 and 3, Gemma 3, BitNet b1.58 and other ternary models. Without one, or as "tiny", a demonstration that comes
    along continues a story. A model that has a chat template gets the prompt as a question; others continue it.

    \b
    Examples:
      kogata run "Once upon a time"
      kogata run bitnet-2b "Why is the sky blue?"
      kogata run ./model --raw --max-tokens 100 "Once upon a time"
      kogata run ./model -f report.txt "Sum this up in three sentences."
      git diff | kogata run ./model --system "Write a commit message."
    """
    from kogata.app import writing

    if writing.is_prompt(model):
        model, prompt = "tiny", (model, *prompt)
    text = writing.prompt_of([_utf8(word) for word in prompt], files)
    options = _split_writing(options)
    return writing.run(model, text, **options)


@cli.command()
@click.argument("model")
@_writing_options
@_loading_options()
def chat(model: str, **options: Any) -> int:
    """Talk with a model in the terminal.

    \b
    Examples:
      kogata chat bitnet-2b
      kogata chat ./model --system "Answer in Japanese." --temperature 0

    Ctrl-C stops an answer, Ctrl-D ends the conversation.
    """
    from kogata.app import writing

    return writing.chat(model, **_split_writing(options))


@cli.command()
@click.argument("model")
@click.argument("directory", metavar="DIR")
@click.option(
    "--quantize",
    "quantise",
    type=click.Choice(["auto", "f32", "bf16", "int8", "int4"]),
    default="auto",
    show_default=True,
    help="Storage of weights that are not ternary; auto: bf16.",
)
@click.option(
    "--head",
    type=click.Choice(["auto", "f32", "bf16", "int8", "int4"]),
    default="auto",
    show_default=True,
    help="Storage of embedding and head; auto: int8 in ternary models.",
)
@click.option(
    "--ternary",
    type=click.Choice(["auto", "ternary", "trits"]),
    default="auto",
    show_default=True,
    help="Ternary weights at two bits, or five to a byte; auto: what is faster here.",
)
@_json_option
def convert(model: str, directory: str, **options: Any) -> int:
    """Pack a model into a folder of its own, which then opens at once.

    \b
    Examples:
      kogata convert bitnet-2b ./bitnet
      kogata convert meta-llama/Llama-3.2-1B ./llama --quantize int4

    The folder can be carried to any machine. Give it to kogata run and kogata chat as MODEL.
    """
    from kogata.app import writing

    return writing.convert(model, directory, **options)


@cli.command()
@click.argument("model", default="tiny")
@click.option(
    "--depths",
    type=_Numbers(),
    metavar="N,N,…",
    help="Tokens in the cache before. Default: 0, and 4096 if it takes them.",
)
@click.option("--threads", type=_Numbers(), metavar="N,N,…", help="Threads to use. Default: one, and all cores.")
@click.option("--prompt", type=int, metavar="N", help="Tokens that are read at once. Default: 512 if it takes them.")
@click.option("--tokens", type=int, default=32, show_default=True, metavar="N", help="Tokens that are written.")
@click.option("--repeat", type=int, default=3, show_default=True, metavar="N", help="How often; medians count.")
@_kv_option()
@_quantise_option()
@_json_option
def bench(model: str, kv: str, quantise: str, **options: Any) -> int:
    """Measure how fast a model reads and writes here.

    By threads and by depth, the tokens that are in the cache before, which are random. Beside it stands what this
    machine would give at best, by its measured bandwidth and arithmetic, and what a token takes: operations, bytes and
    modelled energy, compared with the same model at 16 bits. Measure with nothing else running.

    \b
    Examples:
      kogata bench
      kogata bench ./bitnet --depths 0,4096,65536 --threads 1,2,4
      kogata bench ./bitnet --kv int8 --json > here.json
    """
    from kogata.app import benchmark

    return benchmark.bench(model, loading={"kv": kv, "quantise": quantise}, **options)


@cli.group(invoke_without_command=True)
@_json_option
@click.pass_context
def models(context: click.Context, as_json: bool) -> int | None:
    """List, fetch and remove models.

    Without a command it lists: what was fetched, and what is recommended, with the short name that every command
    takes as MODEL. Models of the Hugging Face hub lie in its own cache, which other programs share.

    \b
    Examples:
      kogata models
      kogata models fetch bitnet-2b
      kogata models fetch unsloth/Qwen3-0.6B-GGUF:Q8_0
      kogata models remove bitnet-2b
    """
    if context.invoked_subcommand is not None:
        return None
    from kogata.app import models as listing

    return listing.show(as_json=as_json)


@models.command("list")
@_json_option
def list_models(as_json: bool) -> int:
    """List what was fetched and what is recommended."""
    from kogata.app import models as listing

    return listing.show(as_json=as_json)


@models.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_json_option
def fetch_models(names: tuple[str, ...], as_json: bool) -> int:
    """Fetch models from the Hugging Face hub.

    A download that was broken off goes on where it stopped. What is here already is not fetched again.

    \b
    Examples:
      kogata models fetch bitnet-2b
      kogata models fetch Qwen/Qwen3-0.6B
      kogata models fetch unsloth/Qwen3-0.6B-GGUF:Q8_0
    """
    from kogata.app import models as listing

    return listing.fetch(names, as_json=as_json)


@models.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json_option
def remove_models(names: tuple[str, ...], yes: bool, as_json: bool) -> int:
    """Take fetched models off the disk.

    \b
    Example:
      kogata models remove bitnet-2b
    """
    from kogata.app import models as listing

    return listing.remove(names, yes=yes, as_json=as_json)


@cli.command()
@click.option("--skipped", is_flag=True, help="List every file that was not indexed, and why.")
@click.option("--files", is_flag=True, help="List every file: searchable by words and meaning, by words, or not.")
@click.option("--verify", is_flag=True, help="Check the whole index for damage instead; exit code 1 if there is any.")
@_index_option
@_json_option
def status(skipped: bool, files: bool, verify: bool, place: str | None, as_json: bool) -> int:
    """Say what is indexed, where, and what was left out.

    \b
    Examples:
      kogata status
      kogata status --skipped
    """
    from kogata.app import commands

    return commands.status(skipped=skipped, files=files, verify=verify, place=place, as_json=as_json)


@cli.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_index_option
@_json_option
def forget(paths: tuple[str, ...], yes: bool, place: str | None, as_json: bool) -> int:
    """Take folders or files out of the index.

    The files themselves are not touched. A file inside a folder that stays indexed is left out from then on.

    \b
    Examples:
      kogata forget ~/papers/old
    """
    from kogata.app import commands

    return commands.forget(paths, yes=yes, place=place, as_json=as_json)


@cli.command()
@_model_options
@_index_option
def mcp(**options: Any) -> int:
    """Let assistants search and ask: a Model Context Protocol server.

    It speaks on stdin and stdout, and only reads.

    \b
    Example, in an assistant's configuration, for the command `kogata mcp`:
      {"mcpServers": {"kogata": {"command": "kogata", "args": ["mcp"]}}}

    Needs the extra mcp: pip install 'kogata[mcp]'.
    """
    from kogata.app import commands

    return commands.mcp(**options)


@cli.command()
@click.option("--require-native", is_flag=True, help="Fail (exit code 1) where the native kernels are not in use.")
@_index_option
@_json_option
def doctor(require_native: bool, place: str | None, as_json: bool) -> int:
    """Say what this machine can do and where things are kept.

    Lists processor, memory, kernels (native or fallback), places and optional parts. Measures memory
    bandwidth and arithmetic peaks, which takes a second or two.
    """
    from kogata.app import doctor as examination

    return examination.run(require_native=require_native, place=place, as_json=as_json)


def _where(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options that say which documents count out of ``options``."""
    return {name: options.pop(name) for name in ("paths", "kinds", "exact")}


def _query(words: tuple[str, ...]) -> str:
    """The query from the arguments, or from stdin for ``-``."""
    if words != ("-",):
        return " ".join(map(_utf8, words))
    data = sys.stdin.buffer.read(_MAX_STDIN)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput("The query on stdin is not UTF-8 text.") from error


def _utf8(argument: str) -> str:
    """An argument read as UTF-8, where Python decoded it by a poorer locale than the terminal's."""
    try:
        return argument if argument.isascii() else os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        return argument


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: what the ``kogata`` script calls."""
    _prepare_streams()
    if "_KOGATA_COMPLETE" in os.environ:  # click's own way to write shell completions
        cli.main(prog_name="kogata")
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends us without a word
        _say(f"stopped; {error}" if str(error) else "stopped")
        return STOPPED
    except KogataError as error:
        _debug()
        return _fail(str(error), error.hint, BAD_INPUT if isinstance(error, BadInput) else FAILED)
    except OSError as error:
        _debug()
        return _fail(_os_message(error), None, FAILED)
    except Exception as error:
        _debug()
        return _fail(
            f"something unexpected happened: {type(error).__name__}: {error}",
            "This is a defect. Please report it with the output of the same command under KOGATA_DEBUG=1.",
            FAILED,
        )


def _run(args: list[str]) -> int:
    try:
        if not args:
            args = ["--help"]
        with cli.make_context("kogata", args) as context:
            return int(cli.invoke(context) or OK)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        return FAILED
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "kogata"
        return _fail(error.format_message(), f"`{where} --help` says what is accepted.", BAD_INPUT)
    except click.ClickException as error:
        return _fail(error.format_message(), None, FAILED)


def _fail(message: str, hint: str | None, code: int) -> int:
    try:
        sys.stdout.flush()
    except (OSError, ValueError):  # what cannot be written now cannot be at the interpreter's end, which would exit 120
        _discard_stdout()
    _say(f"error: {message}")
    if hint:
        _say(f"       {hint}")
    return code


def _say(line: str) -> None:
    """A line on stderr, whatever state stderr is in."""
    from kogata.app.terminal import safe_line

    try:
        sys.stderr.write(safe_line(line) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def _debug() -> None:
    if os.environ.get("KOGATA_DEBUG", "0") not in ("", "0"):
        import traceback

        traceback.print_exc()


def _os_message(error: OSError) -> str:
    name = (
        f": {os.fsencode(error.filename).decode('utf-8', 'replace')}"
        if isinstance(error.filename, (str, bytes))
        else ""
    )
    return f"{error.strerror or error}{name}"


def _prepare_streams() -> None:
    """Streams that can take any text: closed ones go nowhere, unencodable characters become ``?``."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # `kogata … >&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the life of the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _discard_stdout() -> None:
    """Nobody reads any more: let the interpreter's last flush go nowhere instead of complaining."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass


if __name__ == "__main__":
    sys.exit(main())
