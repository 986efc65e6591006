"""What Prometheus reads at `/metrics`: how many ask, how long it takes, what is going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

if TYPE_CHECKING:
    from siqvl.generation.engine import Engine
    from siqvl.serving.server.door import Door

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TOKENS = (1, 4, 16, 64, 256, 1_024, 4_096, 16_384)


class RequestMetrics:
    """The counts of one server, in a registry of their own."""

    def __init__(self, name: str, engine: Engine, door: Door) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("siqvl_model", "What is served", registry=registry).info({"name": name})
        self.requests = Counter(
            "siqvl_requests",
            "Requests by path and status; 499: whoever asked was gone",
            ["path", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "siqvl_request_seconds",
            "From the head of an answered chat request to the end of its answer",
            buckets=SECONDS,
            registry=registry,
        )
        self.first_seconds = Histogram(
            "siqvl_first_text_seconds",
            "From the head of a chat request to the first text of its answer",
            buckets=SECONDS,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "siqvl_prompt_tokens", "Tokens of conversations that were read", registry=registry
        )
        self.completion_tokens = Counter(
            "siqvl_completion_tokens", "Tokens that were written", registry=registry
        )
        self.pictures = Counter("siqvl_pictures", "Pictures that were decoded", registry=registry)
        self.answer_tokens = Histogram(
            "siqvl_answer_tokens", "Tokens of an answer", buckets=TOKENS, registry=registry
        )
        for gauge, about, value in (
            ("siqvl_running", "Answers in the making", lambda: engine.running),
            ("siqvl_waiting", "Answers that wait for a place", lambda: engine.queued),
            ("siqvl_inside", "Requests from their first byte to their last", lambda: door.inside),
            ("siqvl_body_bytes", "Bytes of requests that are held", lambda: door.held),
        ):
            Gauge(gauge, about, registry=registry).set_function(value)

    def text(self) -> bytes:
        """Returns all of them in Prometheus's text format."""
        return generate_latest(self._registry)
