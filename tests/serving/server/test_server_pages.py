"""Probes, metrics, the model's name, and the page that a browser gets."""

from __future__ import annotations

import base64
import re
from hashlib import sha256

import pytest

from siqvl.errors import UserError
from tests.serving.server.running_server import MODEL, Running, running, user


def test_probes(served: Running) -> None:
    assert served.client.get("/health").json() == {"status": "alive"}
    assert served.client.get("/ready").json() == {"status": "ready"}
    for path in ("/", "/health", "/ready"):
        asked = served.client.head(path)
        assert (asked.status_code, asked.content) == (200, b"")


def test_more_than_the_model_reads_is_refused(small) -> None:
    said = "`--max-length` is 10,000,000, but the model reads"
    with pytest.raises(UserError, match=said), running(*small, max_length=10_000_000):
        pass


def test_a_server_without_its_engine_is_neither_alive_nor_ready(small) -> None:
    with running(*small) as found:
        found.service.engine.close()
        assert found.client.get("/health").status_code == 500
        assert found.client.get("/ready").status_code == 503


def test_models(served: Running) -> None:
    listed = served.client.get("/v1/models").json()
    (one,) = listed["data"]
    assert (listed["object"], one["id"], one["object"]) == ("list", MODEL, "model")
    assert served.client.get(f"/v1/models/{MODEL}").json() == one


def test_metrics_count_what_happened(small) -> None:
    with running(*small) as found:
        answer = found.chat(user("hi"), max_tokens=5).json()
        found.client.get("/no/such/path")
        text = found.client.get("/metrics").text
        counts = dict(re.findall(r"^(siqvl_\S+) ([\d.]+)$", text, re.MULTILINE))
        usage = answer["usage"]
        assert float(counts["siqvl_prompt_tokens_total"]) == usage["prompt_tokens"]
        assert float(counts["siqvl_completion_tokens_total"]) == usage["completion_tokens"]
        assert counts['siqvl_requests_total{path="/v1/chat/completions",status="200"}'] == "1.0"
        assert counts['siqvl_requests_total{path="other",status="404"}'] == "1.0"
        assert counts["siqvl_request_seconds_count"] == "1.0"
        assert counts["siqvl_first_text_seconds_count"] == "1.0"
        assert "process_resident_memory_bytes" in text


def test_the_page_loads_nothing_from_elsewhere(served: Running) -> None:
    page = served.client.get("/")
    rules = page.headers["content-security-policy"]
    assert "default-src 'none'" in rules
    assert "unsafe" not in rules
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.text, flags=re.DOTALL)
        digest = base64.b64encode(sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in rules
    assert re.findall(r"https?://|\bsrc=|@import|innerHTML|style=|onclick=", page.text) == []


def test_no_page_describes_the_server_with_scripts_from_elsewhere(served: Running) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert served.client.get(path).status_code == 404
