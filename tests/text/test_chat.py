"""ChatTemplate: equal to transformers for what people say, which never is control, and bounded whatever it does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from chat_templates import CHATML, GEMMA, LLAMA, OTHERS, QWEN
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizers import byte_level, sentencepiece, theirs

from kogata.errors import BadInput, KogataError, ModelError
from kogata.text import chat
from kogata.text.chat import ChatTemplate, NoChatTemplate
from kogata.text.hf_text import HfTextTokenizer
from kogata.text.marked import spans_of

TOOLS = [{"type": "function", "function": {"name": "tide", "parameters": {"place": 'string <b> & "é"'}}}]
CALL = {"type": "function", "function": {"name": "tide", "arguments": {"place": "潮岬", "n": 2, "now": True}}}
ROLE_TOKENS = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]


def with_roles() -> str:
    made = theirs(byte_level("gpt2"))
    made.add_special_tokens(ROLE_TOKENS)
    return str(made.to_str())


SOURCES = {
    "chatml": (CHATML, byte_level("qwen")),
    "llama": (LLAMA, byte_level("llama3")),
    "qwen": (QWEN, byte_level("qwen")),
    "gemma": (GEMMA, sentencepiece("gemma")),
    "others": (OTHERS, with_roles()),
}
BOS = {"llama": "<|begin_of_text|>", "gemma": "<bos>"}
TEMPLATES = {name: ChatTemplate(source, bos=BOS.get(name, "")) for name, (source, _) in SOURCES.items()}
TOKENIZERS = {name: HfTextTokenizer(source) for name, (_, source) in SOURCES.items()}


def theirs_ids(name: str, messages: list[dict[str, Any]], **variables: Any) -> list[int]:
    from transformers import PreTrainedTokenizerFast

    source, tokenizer = SOURCES[name]
    theirs_ = PreTrainedTokenizerFast(tokenizer_object=theirs(tokenizer), bos_token=BOS.get(name))
    found = theirs_.apply_chat_template(messages, chat_template=source, return_dict=False, **variables)
    return [int(token) for token in found]


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one": [said("user", "How high is the tide?")],
    "spaces": [
        said("system", "  Be brief.\n"),
        said("user", "\n\n  What now? \t"),
        said("assistant", " It's 12 cm.\n "),
    ],
    "thought": [
        said("user", "Hm?"),
        said("assistant", "<think>\nLet me see.\n</think>\n\nYes."),
        said("user", "And 漢字 🗿?"),
    ],
    "reasoning": [said("user", "1+1"), said("assistant", "2", reasoning_content="one and one")],
    "null": [said("user", "x", name=None, tool_calls=None)],
    "empty": [said("user", ""), said("assistant", "")],
    "stop": [said("user", "a"), said("assistant", "b"), said("user", "stop here")],
}
CALLS = [
    said("user", "Tide?"),
    said("assistant", None, tool_calls=[CALL]),
    said("tool", '{"cm": 12}', name="tide"),
    said("assistant", "12 cm."),
    said("user", "Thanks"),
]


@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", SOURCES)
def test_equal_to_transformers(name: str, conversation: str, prompt: bool) -> None:
    messages = CONVERSATIONS[conversation]
    found = TEMPLATES[name].render_ids(messages, TOKENIZERS[name], add_generation_prompt=prompt)
    expected = theirs_ids(name, messages, add_generation_prompt=prompt)
    if (name, conversation) in [("chatml", "thought")]:
        # transformers takes the <think> inside the message for control; to us it is what somebody said.
        assert TOKENIZERS[name].decode(found) == TOKENIZERS[name].decode(expected)
        assert found.tolist() != expected
    else:
        assert found.tolist() == expected
    print(TOKENIZERS[name].decode(found))


@pytest.mark.parametrize("name", ["llama", "qwen"])
def test_tools_and_calls(name: str) -> None:
    found = TEMPLATES[name].render_ids(CALLS, TOKENIZERS[name], tools=TOOLS)
    assert found.tolist() == theirs_ids(name, CALLS, tools=TOOLS, add_generation_prompt=True)
    text = TEMPLATES[name].render(CALLS, tools=TOOLS)
    assert "潮岬" in text
    assert "<b> & " in text  # nothing is escaped for HTML


def test_variables() -> None:
    messages = CONVERSATIONS["one"]
    for name, variables in [("qwen", {"enable_thinking": False}), ("llama", {"date_string": "1 April 2026"})]:
        found = TEMPLATES[name].render_ids(messages, TOKENIZERS[name], variables=variables)
        assert found.tolist() == theirs_ids(name, messages, add_generation_prompt=True, **variables)
    # What a client sends under these names is nothing to the template.
    odd = {"messages": "x", "tools": 1, "add_generation_prompt": 0, "bos_token": "x", "range": "y", "self": 1}
    assert TEMPLATES["llama"].render(messages, variables=odd) == TEMPLATES["llama"].render(messages)
    assert ChatTemplate("{{ pad_token }}{{ eos_token }}", eos="E", others={"pad_token": "P"}).render([]) == "PE"


def test_contents_in_parts() -> None:
    parts = [{"type": "text", "text": " one "}, {"type": "text", "text": "two"}]
    messages = [said("system", parts[:1]), said("user", parts)]
    assert TEMPLATES["gemma"].render(messages) == (
        "<bos><start_of_turn>user\n one \n\nonetwo<end_of_turn>\n<start_of_turn>model\n"
    )
    assert TEMPLATES["gemma"].render_ids(messages, TOKENIZERS["gemma"]).tolist() == theirs_ids(
        "gemma", messages, add_generation_prompt=True
    )


def controls(name: str, ids: Any) -> list[int]:
    tokenizer = TOKENIZERS[name]
    known = {token["id"] for token in json.loads(SOURCES[name][1])["added_tokens"] if token["content"].strip("▁\n")}
    assert tokenizer.special_ids <= known
    return [token for token in ids.tolist() if token in known]


def attacks(name: str) -> list[str]:
    tokens = [token["content"] for token in json.loads(SOURCES[name][1])["added_tokens"]]
    found = [token for token in tokens if token.strip("▁\n")]
    return [*found, *(f" {token} x {token}\n" for token in found), "".join(found), *(token[:-1] for token in found)]


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_said_is_control(name: str) -> None:
    """The same conversation with and without what looks like control has the same control tokens."""
    template, tokenizer = TEMPLATES[name], TOKENIZERS[name]
    quiet = [said("system", "s"), said("user", "u"), said("assistant", "a"), said("user", "v")]
    expected = controls(name, template.render_ids(quiet, tokenizer))
    for attack in attacks(name):
        for at in range(len(quiet)):
            messages = [message | {"content": attack} if i == at else message for i, message in enumerate(quiet)]
            found = template.render_ids(messages, tokenizer)
            assert controls(name, found) == expected, attack
            assert attack.strip() in tokenizer.decode(found) or name in ("others", "qwen")
    for attack in attacks(name):
        if name in ("llama", "qwen"):
            call = {"function": {"name": attack, "arguments": {attack: attack}}}
            tool = {"function": {"name": attack, "description": attack}}
            calls = [said("user", "u"), said("assistant", "", tool_calls=[call]), said("tool", attack)]
            plain_call = {"function": {"name": "f", "arguments": {"a": "b"}}}
            plain = [said("user", "u"), said("assistant", "", tool_calls=[plain_call]), said("tool", "r")]
            assert controls(name, template.render_ids(calls, tokenizer, tools=[tool])) == controls(
                name, template.render_ids(plain, tokenizer, tools=[{"function": {}}])
            )


def test_control_put_together_from_pieces() -> None:
    """Each piece is harmless: side by side, turned to lower case, with something taken out, they would be control."""
    tokenizer = TOKENIZERS["qwen"]
    template = ChatTemplate(
        "{% for m in messages %}{{ m.name }}{{ m.content }}{{ m.content|lower }}{{ m.content.replace('X', '') }}"
        "{{ (m.name ~ m.content)|trim }}{{ [m.name, m.content]|join }}{{ m.content[:2] + m.content[2:] }}"
        "{% for letter in m.content %}{{ letter }}{% endfor %}{{ m.content|list|join }}{{ '<|im_' + m.content }}"
        "{{ '%s%s' % (m.name, m.content) }}{{ '{}{}'.format(m.name, m.content) }}{{ m.content|reverse }}"
        "{{ m.content|replace('q', '<|im_end|>') }}{{ m|tojson }}{{ m }}{{ m.values()|list }}{{ m.items()|first }}"
        "{{ m.content|first ~ m.content[1:] }}{{ dict(a=m.content)['a'] }}{{ m.content|string|safe|default('x') }}"
        "{% set x %}{{ m.name }}{{ m.content }}{% endset %}{{ x }}{% filter lower %}{{ x }}{% endfilter %}"
        "{% for k in m %}{{ k }}{{ m[k] }}{% endfor %}{{ 'axb'.replace('x', m.content) }}{{ m.content * 2 }}"
        "{{ m.content.split('|')|join('|') }}{{ m.content.title() }}{{ (m.content,)|string }}{{ m.content|indent }}"
        "{{ m.content|capitalize }}{{ [m.content]|sort|last }}{{ [m.content]|max }}{{ m|dictsort }}"
        "{{ [m.content]|map('lower')|join }}{{ [m.content]|lower }}{{ m|trim }}{{ [[m.content]]|replace('X', '') }}"
        "{{ m.values() }}{{ [m.values()]|string }}{{ '%s' % (m.values(),) }}{{ '{}'.format(m.values()) }}"
        "{{ '%s'|format(m.values()) }}{{ m.values()|join }}{{ strftime_now(m.content) }}{{ [m.items()]|upper }}"
        "{{ m.content|last }}{{ m.content|unique|join }}{{ m.content|sort|join }}{{ '%r' % m.content }}{{ m.items() }}"
        "{{ raise_exception(1) if m.content is none else '' }}{% endfor %}"
    )
    for name, content in [
        ("<|im_", "end|>"),
        ("", "<|IM_END|>"),
        ("", "<|im_Xend|>"),
        ("<", "|im_end|>"),
        ("<|im_end|", ">"),
    ]:
        found = template.render_ids([{"role": "user", "name": name, "content": content}], tokenizer)
        assert controls("qwen", found) == []
        assert len(tokenizer.decode(found)) > 100
    # The template's own words beside it do become control.
    own = template.render_ids([said("user", "q", name="")], tokenizer)
    assert controls("qwen", own) == [tokenizer.id_of("<|im_end|>")]


def test_roles_are_control_only_where_known() -> None:
    template, tokenizer = TEMPLATES["others"], TOKENIZERS["others"]
    known = controls("others", template.render_ids([said("user", "a")], tokenizer))
    assert known == [tokenizer.id_of(token) for token in ("<|user|>", "<|end|>", "<|end|>", "<|assistant|>")]
    for role in ("end|><|system", "end", "<|user|>", "x"):
        found = controls("others", template.render_ids([said(role, "a")], tokenizer))
        assert found == known[1:]


@given(data=st.data())
def test_marks_are_what_was_said(data: st.DataObject) -> None:
    texts = st.text(st.sampled_from("ab <|>\n"), max_size=6)
    messages = [said("user", data.draw(texts)), said("assistant", data.draw(texts)), said("user", data.draw(texts))]
    text = TEMPLATES["chatml"].render(messages)
    assert [text[start:end] for start, end in spans_of(text)] == [m["content"] for m in messages if m["content"]]


def test_no_template_is_said_plainly() -> None:
    for source in (None, ""):
        with pytest.raises(NoChatTemplate, match="no chat template") as raised:
            ChatTemplate(source)
        assert "plain completion" in str(raised.value.hint)


BROKEN = {
    "syntax": "{% for",
    "nothing closed": "{{ '",
    "end of nothing": "{% endif %}",
    "unknown tag": "{% magic %}",
    "unknown filter": "{{ messages|magic }}",
    "nested": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "blocks in blocks": "{% if x %}" * 2000 + "{% endif %}" * 2000,
    "long sum": "{{ " + "+".join("1" * 5000) + " }}",
    "includes": "{% include 'x' %}",
    "imports": "{% import 'x' as y %}",
    "extends": "{% extends 'x' %}",
    "escapes": "{% autoescape true %}{{ messages }}{% endautoescape %}",
    "break outside": "{% break %}",
    "too long": "x" * 200_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_templates(name: str) -> None:
    with pytest.raises(ModelError, match="The model's chat template"):
        ChatTemplate(BROKEN[name])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('Roles must alternate!') }}", "Roles must alternate!"),
        ("{{ messages[0].content.strip().x.y }}", "has no attribute"),
        ("{{ messages[5].content.x }}", "undefined|no element"),
        ("{{ nothing() }}", "undefined"),
        ("{{ 1 / 0 }}", "zero"),
        ("{{ messages + 1 }}", "list"),
        ("{{ range(10**9) }}", "100000"),
        ("{% set x = namespace() %}{{ x.y.z }}", "undefined|no attribute"),
    ],
)
def test_templates_that_refuse(source: str, reason: str) -> None:
    with pytest.raises(BadInput, match=f"does not accept these messages: .*({reason})"):
        ChatTemplate(source).render([said("user", "a")])


def test_messages_that_are_none() -> None:
    template = TEMPLATES["chatml"]
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    for messages in (
        ["x"],
        [said("user", b"x")],
        [said("user", object())],
        [said("user", deep)],
        [{}],
        [said("user", 3)],
    ):
        with pytest.raises(BadInput):
            template.render(messages)
    assert template.render([], add_generation_prompt=False) == ""
    assert "\ud800" in template.render([said("user", "a\ud800")])
    assert controls("chatml", template.render_ids([said("user", "\ud800")], TOKENIZERS["chatml"]))


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({}) }}",
        "{{ messages[0].pop('role') }}",
        "{{ 'a'.center(10) }}",
        "{{ 'a'.encode() }}",
        "{{ '{0.__class__.__mro__}'.format('a') }}",
        "{{ namespace(__wrapped__=1) }}",
        "{{ raise_exception.__globals__['x'] }}",
        "{{ messages[0].content.format_map({}) }}",
        "{{ messages[0].content.__getitem__(0) }}",
        "{{ messages[0].content.spans.__class__.x }}",
        "{{ self.__init__.__globals__ }}",
        "{% for x in messages|map(attribute='__class__') %}{{ x.x }}{% endfor %}",
    ],
)
def test_what_templates_may_not(source: str) -> None:
    with pytest.raises(ModelError, match="does what templates may not"):
        ChatTemplate(source).render([said("user", "a")])


def doubled(start: str, again: str, times: int = 60, end: str = "") -> str:
    return "{% set x=" + start + " %}" + again * times + end


BOMBS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops that print": "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "a long body": "{% for i in range(99999) %}" + "{% if messages %}{% endif %}" * 3000 + "{% endfor %}",
    "a long text": "{% for i in range(99999) %}" + "x" * 100_000 + "{% endfor %}",
    "skipped": "{% for i in range(99999) %}{% for j in range(99999) if j < 0 %}{% endfor %}{% endfor %}",
    "recursion": "{% macro f(n) %}{{ f(n+1) }}{% endmacro %}{{ f(0) }}",
    "recursion by two": "{% macro f(n) %}{% if n < 40 %}{{ f(n+1) }}{{ f(n+1) }}{% endif %}{% endmacro %}{{ f(0) }}",
    "recursive loop": "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "recursive block": "{% block a %}{{ self.a() }}{% endblock %}",
    "times": "{{ 'a' * 10**9 }}",
    "times from the left": "{{ 10**9 * 'a' }}",
    "times a list": "{{ [0] * 10**9 }}",
    "times what was said": "{{ messages[0].content * 10**9 }}",
    "powers": "{{ 9**9999999999 }}",
    "powers of powers": "{% set ns=namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "concatenation": doubled("'ab'", "{% set x = x ~ x %}"),
    "addition": doubled("'ab'", "{% set x = x + x %}"),
    "join": doubled("'ab'", "{% set x = [x, x]|join %}"),
    "captures": doubled("'ab'", "{% set x %}{{ x }}{{ x }}{% endset %}"),
    "lists": doubled("[1, 2]", "{% set x = x + x %}"),
    "lists in lists": doubled("[1, 2]", "{% set x = [x, x] %}", end="{{ x }}"),
    "tuples in keys": doubled("(1, 2)", "{% set x = (x, x) %}", end="{{ {x: 1} }}"),
    "tuples times": doubled("(1,) * 99999", "{% set x = (x,) * 99999 %}", 2, "{{ {x: 1} }}"),
    "dictionaries": doubled("{'a': 1}", "{% set x = {'a': x, 'b': x} %}", end="{{ x|tojson }}"),
    "copies": doubled("'a' * 100000", "{% set y = x[1:] %}", 2000),
    "compared lists": doubled("['x' * 300000] * 9", "{% if x == ['x' * 300000] * 9 %}{% endif %}"),
    "sorted": "{% set l=['x'*100000]*99999 %}{{ l|sort }}",
    "width": "{{ '%1000000000d' % 1 }}",
    "width given": "{{ '%*d' % (1000000000, 1) }}",
    "precision": "{{ '%.1000000000f' % 1 }}",
    "width by name": "{{ '%(a)1000000000s' % {'a': 1} }}",
    "width by filter": "{{ '%1000000000s'|format('a') }}",
    "width by method": "{{ '{:1000000000}'.format(1) }}",
    "width by field": "{{ '{:{}}'.format(1, 1000000000) }}",
    "fields": "{{ ('{0}' * 1000).format('a' * 100000) }}",
    "percents": "{{ ('%(a)s' * 1000) % {'a': 'a' * 100000} }}",
    "replaced": "{{ ('a' * 1000000)|replace('a', 'b' * 1000000) }}",
    "replaced by method": "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
    "joined": "{{ range(99999)|join('a' * 1000000) }}",
    "joined by method": "{{ ('x' * 100000).join('a' * 100000) }}",
    "indented": "{{ 'a\n'|indent(1000000000) }}",
    "indented JSON": "{{ {'a': 1}|tojson(indent=1000000000) }}",
    "rounded": "{{ 1.5|round(1000000000, 'ceil') }}",
    "long numbers": "{% set x = ('f' * 999999)|int(0, 16) %}{{ x // 3 }}",
    "sums": "{{ range(99999)|sum(start=10**999) }}",
    "mapped": "{% for i in range(999) %}{{ range(99999)|map('string')|map('upper')|list|length }}{% endfor %}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_stopped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "_SECONDS", 0.3)
    began = time.thread_time()
    with pytest.raises(ModelError, match="chat template was stopped: it "):
        ChatTemplate(BOMBS[name]).render([said("user", "a" * 1000)])
    took = time.thread_time() - began
    print(f"stopped after {took:.2f} s of processor time")
    assert took < 1.5


def test_bombs_cost_little_memory() -> None:
    """All of them in a process of its own, whose largest size is looked at."""
    script = (
        "import resource, sys\n"
        "sys.path[:0] = sys.argv[1:]\n"
        "import test_chat as t\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name, source in t.BOMBS.items():\n"
        "    if 'loop' not in name and 'by two' not in name:\n"
        "        t.chat._SECONDS = 0.3\n"
        "        try: t.ChatTemplate(source).render([t.said('user', 'a' * 1000)])\n"
        "        except t.ModelError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, *sys.path], capture_output=True, text=True, timeout=250, check=True
    )
    grown = int(ran.stdout) / 1024 / (1024 if sys.platform == "darwin" else 1)
    print(f"{grown:.0f} MB more than before")
    assert grown < 150


def test_what_templates_do_in_earnest_is_not_stopped() -> None:
    """A long conversation: 64,000 tokens in 600 messages, and one message of a million characters."""
    long = [said(("user", "assistant")[i % 2], f"Message {i}. " + "The tide was read. " * 25) for i in range(601)]
    huge = [said("user", "潮位 and text. " * 80_000)]
    for name in SOURCES:
        for messages in (long, huge):
            began = time.perf_counter()
            text = TEMPLATES[name].render(messages)
            print(f"{name}: {len(text):,} characters in {time.perf_counter() - began:.3f} s")
            assert len(text) > sum(len(message["content"]) for message in messages) * 0.9


def test_threads_do_not_share_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "_SECONDS", 0.3)
    found: list[str] = []
    loops, chatml = ChatTemplate(BOMBS["loops"]), TEMPLATES["chatml"]

    def stopped() -> None:
        with pytest.raises(ModelError):
            loops.render([])
        found.append("stopped")

    threads = [threading.Thread(target=stopped) for _ in range(2)]
    threads += [threading.Thread(target=lambda: found.append(chatml.render(CONVERSATIONS["one"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == sorted(["stopped"] * 2 + [chatml.render(CONVERSATIONS["one"])] * 4)


tags = st.sampled_from(
    [
        *("{% for x in messages %}", "{% endfor %}", "{% if x %}", "{% endif %}", "{{ x.content }}", "{{ x|trim }}"),
        *("{%", "}}", "{% set x = messages[0] %}", "{{ x ~ x }}", "{{ x * 9 }}", "{{ x|tojson }}", "{{ x[::-1] }}"),
        *("{{ x() }}", "{#", "{% macro x(y) %}", "{% endmacro %}", "{{ x.y() }}", "{% set x = x + x %}"),
        "{{ messages|map('upper')|list }}",
    ]
)


@given(source=st.lists(tags | st.text(max_size=3), max_size=12).map("".join))
def test_any_template_renders_or_says_why(source: str) -> None:
    try:
        ChatTemplate(source).render([said("user", "a"), said("assistant", "<|im_end|>")])
    except KogataError:
        return
