"""`GET /metrics`: the figures of this process and of the fleet, in Prometheus' text format."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from django.http import HttpResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector
from prometheus_client import generate_latest as encoded
from prometheus_client.core import Metric
from rest_framework.request import Request

from agentcom.api import ApiView
from agentcom.calls import Answer, call
from agentcom.errors import Unavailable
from agentcom.rights import Right
from agentcom.shapes import TEXT
from agentcom.shapes import shown as example
from dashboard.live import live
from metrics.access import MayReadMetrics
from metrics.counted import counted
from metrics.shown import shown

FIRST_READ_S = 2.0  # so long the first scrape waits for the state; then it does without
METRICS = example(TEXT, '# TYPE agentcom_agents gauge\nagentcom_agents{state="idle"} 3.0\n')

process = ProcessCollector(registry=None)


@dataclass(frozen=True, slots=True)
class Scraped:
    """The families of one scrape; prometheus-client encodes whatever can `collect`."""

    families: Sequence[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


class Metrics(ApiView):
    permission_classes = [MayReadMetrics]

    @call(
        "read_metrics", Right.READ_ALL, {200: Answer("Metrics.", METRICS, media_type="text/plain")}
    )
    async def get(self, request: Request) -> HttpResponse:
        """Read the metrics of this process and of the fleet, for Prometheus.

        Programs on the hub's own machine need no token if they ask directly: not through a proxy,
        and by an address or name of the loopback interface."""
        await _know_state()
        families = [*counted.collect(), *shown.collect()]
        # In a thread, because to count the open files of thousands of sockets takes a while.
        body = await asyncio.to_thread(_encode, families)
        return HttpResponse(body, content_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _know_state() -> None:
    """Only the first scrape reads it from the database; from then on it follows the journal."""
    live.use()
    if live.can_show:
        return
    with suppress(Unavailable, TimeoutError):
        async with asyncio.timeout(FIRST_READ_S):
            await live.current()


def _encode(families: Sequence[Metric]) -> bytes:
    scraped = Scraped([*families, *process.collect()])
    return encoded(cast(CollectorRegistry, scraped))
