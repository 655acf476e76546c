"""Clients that people have already: OpenAI's, LangChain's, llm, Cohere's and node's openai."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from serve_process import Server

import kogata

TEXTS = ["what is a tide", "潮位とは何か"]


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return kogata.Encoder().encode_document(TEXTS)


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_openai(server: Server, expected: np.ndarray, form: str | None) -> None:
    openai = pytest.importorskip("openai")
    options = {} if form is None else {"encoding_format": form}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        answer = client.embeddings.create(model="default", input=TEXTS, **options)
        assert [model.id for model in client.models.list().data] == [answer.model, "tiny"]
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            client.embeddings.create(model="default", input=TEXTS, dimensions=9999)
        with pytest.raises(openai.NotFoundError, match="gpt-9"):
            client.embeddings.create(model="gpt-9", input=TEXTS)
    got = [entry.embedding for entry in answer.data]
    if form == "base64":
        np.testing.assert_array_equal([np.frombuffer(base64.b64decode(one), "<f4") for one in got], expected)
    else:
        np.testing.assert_array_equal(np.array(got, np.float32), expected)


def test_langchain(server: Server, expected: np.ndarray) -> None:
    langchain = pytest.importorskip("langchain_openai")
    embeddings = langchain.OpenAIEmbeddings(
        base_url=f"{server.url}/v1", api_key="none", model="default", check_embedding_ctx_length=False
    )
    np.testing.assert_array_equal(np.array(embeddings.embed_documents(TEXTS), np.float32), expected)
    np.testing.assert_array_equal(np.array(embeddings.embed_query(TEXTS[0]), np.float32), expected[0])


def test_llm(server: Server, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugin = pytest.importorskip("llm.default_plugins.openai_models")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    got = list(plugin.OpenAIEmbeddingModel("kogata", "default").embed_batch(TEXTS, key="none"))
    np.testing.assert_array_equal(np.array(got, np.float32), expected)
    command = [sys.executable, "-m", "llm", "openai", "endpoint", f"{server.url}/v1", "--models"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert server.http.get("/v1/models").json()["data"][0]["id"] in done.stdout


def test_cohere(server: Server) -> None:
    cohere = pytest.importorskip("cohere")
    documents = ["Bread.", "The tide gauge."]
    with httpx.Client() as http:
        newer = cohere.ClientV2(api_key="none", base_url=server.url, httpx_client=http)
        results = newer.rerank(model="default", query="tide", documents=documents, top_n=1).results
        assert [result.index for result in results] == [1]
        older = cohere.Client(api_key="none", base_url=server.url, httpx_client=http)
        results = older.rerank(model="default", query="tide", documents=documents, return_documents=True).results
        assert [(result.index, result.document.text) for result in results] == [(1, documents[1]), (0, documents[0])]


def test_node_openai(server: Server, expected: np.ndarray) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = """
      let OpenAI;
      try { OpenAI = require("openai"); } catch { process.exit(42); }
      const client = new OpenAI.OpenAI({ baseURL: process.argv[1], apiKey: "none" });
      client.embeddings.create({ model: "default", input: JSON.parse(process.argv[2]) })
        .then((answer) => console.log(JSON.stringify(answer.data.map((entry) => entry.embedding))));
    """
    command = [node, "-e", script, f"{server.url}/v1", json.dumps(TEXTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 42:
        pytest.skip("npm's openai is not installed")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.array(json.loads(done.stdout), np.float32), expected)
