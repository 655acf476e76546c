# ruff: noqa: E501  (sample documents read best unbroken)
"""Encodings found out: Python's own codecs are the oracle (text encoded by them must come back)."""

from __future__ import annotations

import pytest

from kogata.ask.documents import Refused
from kogata.ask.documents.encoding import decode

KUMO = (
    "ある日の事でございます。御釈迦様は極楽の蓮池のふちを、独りでぶらぶら御歩きになっていらっしゃいました。"
    "池の中に咲いている蓮の花は、みんな玉のようにまっ白で、そのまん中にある金色の蕊からは、何とも云えない好い匂が、"
    "絶間なくあたりへ溢れて居ります。極楽は丁度朝なのでございましょう。"
)
JAPANESE = [
    "日本", "東京都", "猫である", "はい", "株式会社", "カタカナ", "潮位", "名前はまだ無い。", "１２３", "テスト123テスト",
    "Mr. 田中さん", "価格：１，２００円", "これは pen です", KUMO[:20], KUMO,
]  # fmt: skip
WESTERN = [
    "Le café est fermé à Noël.", "élève", "Où est la forêt ? Là-bas, près du château où naît l’été.",
    "Müller grüßt Jürgen", "naïve café", "São Paulo não é à beira-mar", "Ça coûte 5 €", "señor niño",
    "“Smart quotes” — and dashes…", "£5", "é", "Él está aquí", "Ärger, Öl und Übermut", "ÉCOLE NORMALE SUPÉRIEURE",
]  # fmt: skip


@pytest.mark.parametrize("text", JAPANESE)
@pytest.mark.parametrize(
    "codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp932", "shift_jis", "euc_jp", "iso2022_jp"]
)
def test_japanese_in_every_encoding(text: str, codec: str) -> None:
    decoded = decode(text.encode(codec))
    assert decoded.text.lstrip("\ufeff") == text
    assert decoded.replaced == 0


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize(
    "text", [KUMO, KUMO + "\n", "Plain English text, no mark.\n", "吾輩は猫である。\n名前はまだ無い。\n"]
)
def test_wide_encodings_without_a_mark(text: str, codec: str) -> None:
    assert decode(text.encode(codec)).text == text


@pytest.mark.parametrize("text", WESTERN)
def test_western_is_not_taken_for_japanese(text: str) -> None:
    assert decode(text.encode("cp1252")).text == text


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("Привет, как дела? Это текст на русском языке.", "cp1251"),
        ("Привет, как дела? Это текст на русском языке.", "koi8-r"),
        ("这是一个中文文本，用于测试编码检测的效果。我们希望它能正确识别。", "gb18030"),
        ("한국어 텍스트의 인코딩을 감지하는 시험입니다.", "euc_kr"),
        ("這是一個繁體中文的文本，用於測試編碼檢測。", "big5"),
    ],
)
def test_other_languages(text: str, codec: str) -> None:
    assert decode(text.encode(codec)).text == text


def test_declared_encodings_are_believed_if_they_fit() -> None:
    page = '<html><head><meta charset="Shift_JIS"></head><body>半角ｶﾅ</body></html>'
    assert decode(page.encode("cp932"), declared=True).text == page
    lying = '<meta charset="us-ascii">吾輩は猫である'
    assert decode(lying.encode(), declared=True).text == lying
    nonsense = '<meta charset="rot13">plain'
    assert decode(nonsense.encode(), declared=True).text == nonsense


def test_what_cannot_be_decoded_is_counted() -> None:
    data = KUMO.encode()[:-1]  # a character cut by a broken copy
    decoded = decode(data)
    assert decoded.encoding == "utf-8"
    assert decoded.replaced == 1
    assert decoded.text.endswith("\ufffd")


@pytest.mark.parametrize("data", [bytes(range(256)) * 20, b"\x00\x01\x02\x03" * 100, b"abc\x00\x00\x00\x00\x01" * 50])
def test_binary_is_refused(data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        decode(data)
    assert refused.value.code == "binary"


def test_a_long_ascii_text_is_utf8() -> None:
    assert decode(b"just ascii\n" * 1000).encoding == "utf-8"
    assert decode(b"").text == ""
