"""Mail: subject, people, date, the text, the names of attachments; mailboxes message by message."""

from __future__ import annotations

import re
from email import policy
from email.errors import MessageError
from email.message import EmailMessage
from email.parser import BytesParser

from kogata.ask.documents.builder import Builder, clean, squeeze
from kogata.ask.documents.encoding import decode
from kogata.ask.documents.formats.html import add_html
from kogata.ask.documents.formats.plain import add_paragraphs
from kogata.ask.documents.model import Refused
from kogata.ask.documents.source import Source

_SEPARATOR = re.compile(rb"(?:\A|\n\r?\n)From [^\n]+\n(?=[A-Za-z-]+:)")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.M)
_SHOWN = (("From", "from"), ("To", "to"), ("Cc", "cc"), ("Date", "date"))
_DEEPEST = 10


def read(source: Source, out: Builder) -> None:
    """Add one message (.eml) or all of a mailbox."""
    if source.kind == "eml":
        _message(source.data, out, 1)
        return
    starts = [match.start() + match[0].index(b"From ") for match in _SEPARATOR.finditer(source.data)]
    if not starts:
        raise Refused("corrupt", "No message begins in it as a mailbox's messages do.")
    out.n_pages = len(starts)
    damaged = 0
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(source.data)], strict=True), start=1):
        out.page = number
        out.leave(0)
        raw = source.data[source.data.index(b"\n", start) + 1 : end]
        try:
            _message(_QUOTED_FROM.sub(rb"\1", raw), out, 1)
        except Refused as refused:
            if refused.code == "too_large":
                raise
            damaged += 1
    if damaged:
        out.note(f"{damaged:,} messages could not be read and were left out.")


def _message(data: bytes, out: Builder, level: int) -> None:
    try:
        message = BytesParser(EmailMessage, policy=policy.default).parsebytes(data)
    except (MessageError, ValueError, IndexError, AttributeError) as error:
        raise Refused("corrupt", f"It is not a readable message ({type(error).__name__}).") from None
    _add(message, out, level)


def _add(message: EmailMessage, out: Builder, level: int) -> None:
    subject = _header(message, "subject")
    out.title = out.title or subject
    out.heading(level, subject or "(no subject)")
    people = [f"{label}: {value}" for label, name in _SHOWN if (value := _header(message, name))]
    out.add("paragraph", "\n".join(people))
    _body(message, out, level)


def _header(message: EmailMessage, name: str) -> str:
    """A header decoded; raw bytes that are not labelled are guessed like any text."""
    try:
        value = str(message.get(name, ""))
    except (MessageError, ValueError, IndexError, AttributeError, TypeError):  # headers too odd for the parser
        value = next((str(v) for k, v in message.raw_items() if k.lower() == name), "")
    if any("\udc80" <= c <= "\udcff" for c in value):
        try:
            value = decode(value.encode("ascii", "surrogateescape")).text
        except (Refused, UnicodeEncodeError):
            value = value.encode("utf-8", "replace").decode()
    return squeeze(value)


def _body(message: EmailMessage, out: Builder, level: int) -> None:
    plain: list[EmailMessage] = []
    rich: list[EmailMessage] = []
    inner: list[EmailMessage] = []
    attached: list[str] = []
    stack = [message]
    while stack:
        part = stack.pop()
        kind = part.get_content_type()
        if kind == "message/rfc822":
            inner += [p for p in part.iter_parts() if isinstance(p, EmailMessage)]
        elif part.is_multipart():
            parts = [p for p in part.iter_parts() if isinstance(p, EmailMessage)]
            if kind == "multipart/alternative" and any(p.get_content_type() == "text/plain" for p in parts):
                parts = [p for p in parts if p.get_content_type() != "text/html"]
            stack.extend(reversed(parts))
        elif (name := _file_name(part)) or part.get_content_disposition() == "attachment":
            attached.append(name or kind)
        elif kind == "text/html":
            rich.append(part)
        elif kind.startswith("text/"):
            plain.append(part)
    for part in plain:
        add_paragraphs(_unquoted(clean(_text(part, out))), out)
    if not plain:
        for part in rich:
            title = out.title
            add_html(_text(part, out), out, main_only=False, base_level=level)
            out.title = title
    if attached:
        out.paragraph("Attachments: " + ", ".join(attached))
    for other in inner if level < _DEEPEST else []:
        _add(other, out, level + 1)


def _file_name(part: EmailMessage) -> str:
    try:
        return squeeze(part.get_filename() or "")
    except (MessageError, ValueError, TypeError, AttributeError):
        return ""


def _text(part: EmailMessage, out: Builder) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes) or not payload:
        return ""
    try:
        decoded = decode(payload, declared=part.get_content_type() == "text/html", hint=part.get_content_charset())
    except Refused:
        out.note("A part of a message is not text, though it says so; it was left out.")
        return ""
    out.encoding = out.encoding or decoded.encoding
    if decoded.replaced:
        out.note(f"{decoded.replaced:,} characters could not be decoded as {decoded.encoding} and were replaced.")
    return decoded.text


def _unquoted(text: str) -> str:
    """Without the marks before quoted lines, which stand between the words of a sentence."""
    return re.sub(r"^(?:> ?)+", "", text, flags=re.M)
