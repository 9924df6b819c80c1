"""What Prometheus reads at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counts of one application, with a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.stages = Histogram(
            "overtone_stage_seconds",
            "Seconds of a request in read, decode, queue, compute and answer",
            ("model", "stage"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "overtone_batch_images", "Images of a batch", ("model",), buckets=_BATCHES, registry=self.registry
        )
        self.queue = Gauge(
            "overtone_queue_images", "Images accepted and not answered yet", ("model",), registry=self.registry
        )
        self.requests = Counter(
            "overtone_requests", "Requests by route and status", ("route", "status"), registry=self.registry
        )
        self.errors = Counter(
            "overtone_errors", "Answers with status 400 or above", ("status",), registry=self.registry
        )

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)
