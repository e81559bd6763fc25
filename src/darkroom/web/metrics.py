"""What Prometheus is told: requests, waiting, errors, and what the model says, so that a drift of its answers shows."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from darkroom.bundle import BundleInfo
from darkroom.engines.prediction import Answer, Failure

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
SPREAD = (-64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8)


class Metrics:
    """The numbers of one application, in a registry of its own, so that two in one process do not mix."""

    def __init__(self, info: BundleInfo | None = None) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = self._counter("requests", "Requests answered.", "method", "endpoint", "status")
        self._refused = self._counter("refused_requests", "Requests that never reached the application.", "status")
        self._latency = self._histogram("request_seconds", "Time in the application.", SECONDS, "endpoint")
        self.waited = self._histogram("queue_seconds", "Time between a request's arrival and its turn.", SECONDS)
        self._predictions = self._counter("predictions", "Pictures answered, by the class that was best.", "label")
        self._unsure = self._counter("unsure", "Pictures whose answer was: not sure.")
        self._unreadable = self._counter("unreadable_pictures", "Pictures that got no answer.")
        self._confidence = self._histogram("confidence", "Probability of the best class.", SHARES)
        self._novelty = self._histogram(
            "novelty", "How unlike the pictures of training; higher is more.", _spread(info)
        )
        self._unlike = self._counter("unlike_pictures", "Pictures unlike those of training.")
        if info is not None:
            self._describe(info)

    def count_request(self, method: str, endpoint: str | None, status: int, seconds: float) -> None:
        """Count one answered request; strangers choose methods and addresses, but not how many series there are."""
        known, name = method if method in METHODS else "other", endpoint or "none"
        self._requests.labels(known, name, str(status)).inc()
        self._latency.labels(name).observe(seconds)

    def count_refused(self, status: int) -> None:
        """Count a request that the server answered without the application."""
        self._refused.labels(str(status)).inc()

    def count_answers(self, answers: Iterable[Answer]) -> None:
        """Count what the model said."""
        for answer in answers:
            if isinstance(answer, Failure):
                self._unreadable.inc()
                continue
            self._predictions.labels(answer.label).inc()
            self._confidence.observe(answer.confidence)
            self._unsure.inc(not answer.sure)
            if answer.novelty is not None:
                self._novelty.observe(answer.novelty.score)
                self._unlike.inc(answer.novelty.unlike)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a number that is read whenever Prometheus asks."""
        Gauge(f"darkroom_{name}", text, registry=self.registry).set_function(value)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All of it, and its media type, in the format that `accept` asks for."""
        encoder, media_type = choose_encoder(accept)
        return encoder(self.registry), media_type

    def _describe(self, info: BundleInfo) -> None:
        """Name the model, start every class at 0, since what was never seen has no rate, and say what to expect."""
        for label in info.classes:
            self._predictions.labels(label)
        weights = str(info.provenance.get("weights_sha256") or "")
        known = Gauge(
            "darkroom_model_info", "The model that answers.", ("name", "weights_sha256"), registry=self.registry
        )
        known.labels(info.name, weights).set(1)
        accuracy = ((info.metrics.get("validation") or {}).get("accuracy") or {}).get("value")
        self._expect("accuracy", "Part of validation's pictures that were answered rightly.", accuracy)
        alarms = info.novelty.get("false_alarms")
        self._expect("unlike_ratio", "Part of validation's pictures that are called unlike those of training.", alarms)

    def _expect(self, name: str, text: str, value: float | None) -> None:
        if value is not None:
            Gauge(f"darkroom_validation_{name}", text, registry=self.registry).set(value)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"darkroom_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"darkroom_{name}", text, labels, registry=self.registry, buckets=buckets)


def _spread(info: BundleInfo | None) -> tuple[float, ...]:
    """Bounds of novelty, among them the threshold of the model."""
    threshold = [] if info is None or not info.novelty else [float(info.novelty["threshold"])]
    return tuple(sorted({*SPREAD, *threshold}))
