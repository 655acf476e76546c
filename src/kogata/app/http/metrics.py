"""What Prometheus is told."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 120)


class Metrics:
    """Counters of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        labels = ["method", "route"]
        self._requests = Counter("kogata_requests_total", "Requests answered.", [*labels, "status"], registry=registry)
        self._seconds = Histogram(
            "kogata_request_seconds", "Time to answer.", labels, buckets=_BUCKETS, registry=registry
        )
        self.in_flight = Gauge("kogata_requests_in_flight", "Requests being answered.", registry=registry)
        self.texts = Counter("kogata_embedded_texts_total", "Texts embedded for callers.", registry=registry)
        self.tokens = Counter("kogata_embedded_tokens_total", "Tokens of these texts.", registry=registry)
        self.prompt_tokens = Counter("kogata_prompt_tokens_total", "Tokens of prompts.", registry=registry)
        self.cached_tokens = Counter(
            "kogata_cached_tokens_total", "Those of them that were known already.", registry=registry
        )
        self.written_tokens = Counter("kogata_generated_tokens_total", "Tokens written.", registry=registry)
        self.answers = Gauge("kogata_answers", "Requests for texts, by state.", ["state"], registry=registry)
        self.first_token = Histogram(
            "kogata_first_token_seconds", "Time to a text's first token.", buckets=_BUCKETS, registry=registry
        )
        for state in ("waiting", "running"):
            self.answers.labels(state)
        self.engine_up = Gauge("kogata_engine_up", "1 while the engine can be called.", registry=registry)
        self.restarts = Gauge("kogata_engine_restarts", "How often the engine was started again.", registry=registry)
        self.indexing = Gauge("kogata_indexing", "1 while documents are being indexed.", registry=registry)

    def seen(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
