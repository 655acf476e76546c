"""The decoder and its Hugging Face directory against transformers' BitNetForCausalLM."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers.integrations.bitnet import replace_with_bitnet_linear

from kogata.errors import BadInput
from kogata.make import huggingface
from kogata.make.data import token_lengths, train_tokenizer
from kogata.make.nn.decoder import Decoder, Shape

TEXT = "Once upon a time, a fox said: “Wait!” — and the 3 hens waited.\n\n狐は待った。 \U0001f98a  "


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random decoder, rounded to bf16 as its file is, and its directory."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer([TEXT] * 20, 320)
    tokenizer.save(str(folder / "tokenizer.json"))
    shape = Shape(vocab_size=tokenizer.get_vocab_size(), d_model=64, n_layers=3, n_heads=4, n_kv_heads=2, d_ff=96)
    decoder = Decoder(shape, seed=3)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
            weight.copy_(weight.to(torch.bfloat16))
    (folder / "log.jsonl").write_text('{"tokens": 4096}\n{"tokens": 8192}\n')
    huggingface.save(decoder, folder / "tokenizer.json", folder / "log.jsonl", folder / "hf", "# A model\n")
    return decoder, folder / "hf"


def _transformers(folder):
    """What ``from_pretrained`` does with such a directory; that itself wants the package accelerate."""
    config = transformers.BitNetConfig.from_pretrained(folder)
    quantization = transformers.BitNetQuantConfig(**config.quantization_config)
    theirs = transformers.BitNetForCausalLM(config).float().eval()
    replace_with_bitnet_linear(theirs, modules_to_not_convert=["lm_head"], quantization_config=quantization)
    wrong = theirs.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert wrong.unexpected_keys == []
    assert set(wrong.missing_keys) <= {"lm_head.weight"}
    theirs.tie_weights()
    return theirs.float()


def test_logits_and_loss_are_those_of_transformers(model):
    ours, folder = model
    theirs = _transformers(folder)
    ids = torch.randint(5, ours.shape.vocab_size, (3, 41), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got, want = ours(ids), theirs(ids).logits
        off = (got - want).abs().max().item()
        print(f"logits, largest {want.abs().max():.2f}: {off:.1e} off")
        assert off < 1e-4
        assert ours.loss(ids[:, :-1], ids[:, 1:]).mean() == pytest.approx(theirs(ids, labels=ids).loss.item(), abs=1e-4)


def test_the_oracle_can_fail(model):
    """Parity means something: full-precision weights, or sizes read wrong, would show."""
    ours, folder = model
    config = transformers.BitNetConfig.from_pretrained(folder)
    del config.quantization_config
    dense = transformers.BitNetForCausalLM(config).float().eval()
    dense.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    dense.tie_weights()
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        assert (ours(ids) - dense(ids).logits).abs().max() > 0.1


def test_the_tokenizer_reads_back_in_transformers(model):
    _, folder = model
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = theirs(TEXT)["input_ids"]
    assert ids[0] == theirs.bos_token_id == 0
    assert ids == own.encode(TEXT).ids
    assert theirs.decode(ids, skip_special_tokens=True) == TEXT
    assert own.decode(ids) == TEXT
    assert token_lengths(own)[ids].sum() == len(TEXT.encode())
    chat = [{"role": "user", "content": " Hello "}, {"role": "assistant", "content": "Hens."}]
    assert (
        theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        == "<|bos|><|user|>Hello<|end|><|assistant|>Hens.<|end|><|assistant|>"
    )
    generation = transformers.GenerationConfig.from_pretrained(folder)
    assert generation.eos_token_id == [own.token_to_id("<|eos|>"), own.token_to_id("<|end|>")]


def test_the_weights_are_bf16_masters(model):
    decoder, folder = model
    tensors = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert sum(t.numel() for t in tensors.values()) == sum(w.numel() for w in decoder.parameters())
    assert json.loads((folder / "config.json").read_text())["quantization_config"]["linear_class"] == "autobitlinear"


def test_the_directory_reads_back_into_a_decoder(model):
    decoder, folder = model
    other = Decoder(decoder.shape, seed=99)
    assert huggingface.load(other, folder) == 8192
    for (name, got), want in zip(other.state_dict().items(), decoder.state_dict().values(), strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, want), name


def test_a_directory_that_cannot_be_gone_on_from_is_refused(model, tmp_path):
    decoder, folder = model
    with pytest.raises(BadInput, match="another shape"):
        huggingface.load(Decoder(Shape(vocab_size=300, d_model=32, n_layers=1, n_heads=2, n_kv_heads=1)), folder)
    shutil.copytree(folder, tmp_path / "hf")
    for name, damaged in (
        ("log.jsonl", b""),
        ("log.jsonl", b'{"tokens": 40'),
        ("log.jsonl", b'{"loss": 1}'),
        ("model.safetensors", (folder / "model.safetensors").read_bytes()[:-1]),
    ):
        (tmp_path / "hf" / name).write_bytes(damaged)
        with pytest.raises(BadInput, match="cannot be gone on from"):
            huggingface.load(decoder, tmp_path / "hf")
        shutil.copyfile(folder / name, tmp_path / "hf" / name)
    (tmp_path / "hf/log.jsonl").unlink()
    with pytest.raises(BadInput, match=r"log\.jsonl"):
        huggingface.load(decoder, tmp_path / "hf")


def test_evaluation_runs_on_the_kernels_and_gives_the_same_logits(model):
    """In training mode the products are torch's; the same integers, so only the last bits of float32 differ."""
    decoder, _ = model
    ids = torch.randint(5, decoder.shape.vocab_size, (2, 33), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        trained = decoder.train()(ids)
        evaluated = decoder.eval()(ids)
        decoder.train()
    off = (trained - evaluated).abs().max().item()
    print(f"logits, largest {trained.abs().max():.2f}: {off:.1e} off")
    assert off < 1e-4
    assert not torch.equal(trained, evaluated), "both went the same way"


def test_a_token_sees_only_what_came_before():
    decoder = Decoder(Shape(vocab_size=64, d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=48), seed=5)
    ids = torch.arange(1, 21)[None]
    changed = ids.clone()
    changed[0, 12:] = 50
    with torch.no_grad():
        before, after = decoder(ids), decoder(changed)
    assert (before[:, :12] - after[:, :12]).abs().max() < 1e-6
    assert (before[:, 12:] - after[:, 12:]).abs().max() > 1e-3
    assert decoder.loss(ids[:, :-1], ids[:, 1:]).mean().item() == pytest.approx(math.log(64), abs=0.3)
