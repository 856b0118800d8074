"""Figures for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .looks import LookStore

__all__ = ["Monitor"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Monitor:
    """Counts of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gazetell_requests", "Requests answered", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "gazetell_request_seconds",
            "From the first byte of a request to the last of its response",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.sizes = Histogram(
            "gazetell_batch_size",
            "Pictures or questions that went through a stage together",
            ("stage",),
            buckets=SIZES,
            registry=self.registry,
        )
        self.rejected = Counter(
            "gazetell_problems",
            "Requests answered with a problem",
            ("code",),
            registry=self.registry,
        )
        self.abandoned = Counter(
            "gazetell_abandoned", "Requests whose client left before", registry=self.registry
        )
        self.queue = Gauge("gazetell_queue", "Requests in the house", registry=self.registry)
        self.uploads = Gauge("gazetell_upload_bytes", "Requests in memory", registry=self.registry)
        self.looks = Gauge("gazetell_looks", "Pictures kept", registry=self.registry)
        self.look_bytes = Gauge(
            "gazetell_look_bytes", "Memory of the pictures kept", registry=self.registry
        )

    def watch(self, store: LookStore) -> None:
        """Tell of the kept pictures whenever the figures are asked for."""
        self.looks.set_function(lambda: store.measure()[0])
        self.look_bytes.set_function(lambda: store.measure()[1])

    def batch(self, stage: str, size: int) -> None:
        """See ``engine.Observer``."""
        self.sizes.labels(stage).observe(size)

    def text(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self.registry)
