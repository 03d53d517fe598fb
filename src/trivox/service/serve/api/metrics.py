"""Figures for Prometheus: of jobs from the table, so that they outlive the server, and of
requests since it was started.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trivox.service.serve.api.desk import Desk
from trivox.service.serve.jobs.states import OPEN

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class JobFigures(Collector):
    """What the table of the jobs says."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def collect(self) -> Iterator[Metric]:
        """All figures of this moment."""
        counts = self.desk.store.counts()
        jobs = GaugeMetricFamily("trivox_jobs_open", "Open jobs", labels=["state"])
        for state in OPEN:
            jobs.add_metric([state], counts[state])
        yield jobs
        ended = CounterMetricFamily(
            "trivox_jobs", "Jobs that ended", labels=["model", "state"]
        )
        seconds = CounterMetricFamily(
            "trivox_job_seconds", "Seconds that jobs took", labels=["model", "state"]
        )
        for model, end, number, duration in self.desk.store.totals():
            ended.add_metric([model, end], number)
            seconds.add_metric([model, end], duration)
        yield ended
        yield seconds
        alive = self.desk.supervisor.alive
        yield GaugeMetricFamily("trivox_workers", "Workers that run", value=alive)
        free = self.desk.folders.free()
        yield GaugeMetricFamily(
            "trivox_disk_free_bytes", "Left on the disk", value=free
        )


class Metrics:
    """The figures of one server."""

    def __init__(self, desk: Desk) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(JobFigures(desk))
        self._requests = Histogram(
            "trivox_http_seconds",
            "Seconds until an answer begins",
            ("method", "route", "status"),
            registry=self.registry,
            buckets=BUCKETS,
        )

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered. route: with names of parameters, not their values."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)
