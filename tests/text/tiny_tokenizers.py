"""Small tokenizer.json files of every kind that language models come with, trained here."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from kogata.text.bpe import CASED_PATTERN, GPT2_PATTERN, LLAMA3_PATTERN, QWEN_PATTERN

TEXTS = [
    "The tide gauge at Chioggia was read every hour; it's 1234567 mm, isn't it? We'll see what they've DONE.",
    "潮位とは、基準面から測った海面の高さである。東京都と大阪府、東京と大阪。",
    "    def f(x):\n        return x ** 2  # 漢字\n\n\n\tfor i in range(10000):\r\n\t\tprint(i)\r\n",
    "Größe, naïve café — ¿qué? 🗿🗿 👩‍👩‍👧 e\u0301 ﬁ İ <b>bold</b> [INST] <|im_end|> </s> <think> a</think>",
] * 3
LLAMA3_CONTROLS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CHATML_CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_WORDS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
GEMMA_CONTROLS = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]


PATTERNS = {"gpt2": GPT2_PATTERN, "llama3": LLAMA3_PATTERN, "qwen": QWEN_PATTERN, "cased": CASED_PATTERN}


@cache
def byte_level(kind: str, vocab_size: int = 700) -> str:
    """ "gpt2", "llama3", "qwen" or "cased": the pattern, normalizer and control tokens of that family."""
    made = Tokenizer(models.BPE())
    if kind == "gpt2":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PATTERNS[kind]), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    if kind == "qwen":
        made.normalizer = normalizers.NFC()
    made.add_special_tokens(LLAMA3_CONTROLS if kind == "llama3" else CHATML_CONTROLS)
    if kind == "qwen":
        made.add_tokens([AddedToken(word, normalized=False, special=False) for word in QWEN_WORDS])
    return str(made.to_str())


@cache
def cut_several_times() -> str:
    """As Falcon's: words are cut by one rule after another, which no single pattern does."""
    made = Tokenizer.from_str(byte_level("gpt2"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation(behavior="contiguous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
        ]
    )
    return str(made.to_str())


@cache
def tiktoken_like() -> str:
    """As Llama 3's file is made from ranks: every split of a token is a merge, and words are looked up whole."""
    content = json.loads(byte_level("llama3"))
    model = content["model"]
    rank = model["vocab"]
    merges = []
    for token, place in rank.items():
        splits = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in rank and token[i:] in rank]
        merges += [(place, rank[left], rank[right], [left, right]) for left, right in splits]
    model["merges"] = [pair for *_, pair in sorted(merges)]
    model["ignore_merges"] = True
    return json.dumps(content)


@cache
def sentencepiece(kind: str) -> str:
    """ "llama2" (a prefix before each part), "first" (before the first word only) or "gemma" (none)."""
    controls = GEMMA_CONTROLS if kind == "gemma" else ["<unk>", "<s>", "</s>"]
    trained = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trained.train_from_iterator(
        [*(text[:60] for text in TEXTS), "aaaa      b"],
        trainers.BpeTrainer(vocab_size=600, show_progress=False, special_tokens=[*controls, *byte_tokens]),
    )
    content = json.loads(trained.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in controls]
    made = Tokenizer.from_str(json.dumps(content))
    space = decoders.Replace("▁", " ")
    if kind == "first":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        made.pre_tokenizer = None
        steps = [normalizers.Replace(" ", "▁")]
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), *steps]) if kind == "llama2" else steps[0]
    steps = [space, decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence(steps if kind == "gemma" else [*steps, decoders.Strip(" ", 1, 0)])
    if kind == "gemma":
        spaces = ["▁▁", "▁▁▁", "\n\n", "\n\n\n"]
        made.add_tokens([AddedToken(space, normalized=False, special=False) for space in [*spaces, "<table>"]])
    return str(made.to_str())


@cache
def unigram() -> str:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(
            vocab_size=300, show_progress=False, unk_token="<unk>", special_tokens=["<unk>", "<s>", "</s>"]
        ),
    )
    return str(made.to_str())


def every_kind() -> dict[str, str]:
    return {
        **{kind: byte_level(kind) for kind in PATTERNS},
        "tiktoken": tiktoken_like(),
        "falcon": cut_several_times(),
        **{kind: sentencepiece(kind) for kind in ("llama2", "first", "gemma")},
        "unigram": unigram(),
    }


def theirs(source: str) -> Any:
    return Tokenizer.from_str(source)
