"""Admin lists of millions of rows: nothing here counts, sorts or scans a whole table.

Lists are in the order of the primary key, and dates become a range of it. Totals are counted up to
a bound; rows beyond it are found by date, filter or search.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import takewhile
from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import Max, Min, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property

BOUND = 10_000  # rows that can be paged through
WINDOW = 200_000  # newest rows that a filter without an index scans
DATE_PARTS = ("year", "month", "day")


def starts_with(field: str, beginning: str) -> Q:
    """A condition that uses the field's index, in any database."""
    condition = Q(**{f"{field}__startswith": beginning})
    if connection.vendor != "sqlite":  # on PostgreSQL Django makes an index for LIKE
        return condition
    span = {f"{field}__gte": beginning, f"{field}__lt": beginning + chr(0x10FFFF)}
    return condition & Q(**span)


class BoundedPaginator(Paginator):
    """Counts no further than `BOUND`."""

    @cached_property
    def count(self) -> int:
        return min(self._counted, BOUND)

    @property
    def has_more(self) -> bool:
        """Whether there are more rows than can be paged through."""
        return self._counted > BOUND

    @cached_property
    def _counted(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[: BOUND + 1].count())


@dataclass(frozen=True, slots=True)
class Choice:
    """A year, month or day that can be chosen; with no `parts`, all dates."""

    title: str
    parts: tuple[int, ...]


class BoundedChangeList(ChangeList):
    """A list whose dates become a range of the primary key, which increases with them."""

    model_admin: Any  # an `agentcom.admin.ReadOnlyAdmin`
    chosen_dates: tuple[datetime, datetime] | None = None  # from, until

    def get_filters(self, request: HttpRequest) -> Any:
        found = super().get_filters(request)
        lookups: dict[str, Any] = found[2]
        start = lookups.pop(f"{self.date_hierarchy}__gte", None)
        end = lookups.pop(f"{self.date_hierarchy}__lt", None)
        if start and end:
            self.chosen_dates = (start[0], end[0])
        return found

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request, exclude_parameters)
        rows = self.model_admin.for_list(rows)
        if self.chosen_dates is not None:
            first, last = self._span(*self.chosen_dates)
            if first is None:
                return rows.none()
            rows = rows.filter(pk__gte=self._first_scanned(first, last), pk__lte=last)
        elif self._is_scanning():
            newest = self.model._default_manager.aggregate(at=Max("pk"))["at"]
            rows = rows.filter(pk__gte=(newest or 0) - WINDOW)
        return rows

    def _span(self, start: datetime, end: datetime) -> tuple[Any, Any]:
        """The first and the last key of these dates, by two lookups in the index of the dates."""
        field = str(self.date_hierarchy)
        rows = self.model._default_manager.filter(
            **{f"{field}__gte": start, f"{field}__lt": end}
        ).values_list("pk", flat=True)
        return rows.order_by(field, "pk").first(), rows.order_by(f"-{field}", "-pk").first()

    def _first_scanned(self, first: Any, last: Any) -> Any:
        """The first key to read, so that no more than `WINDOW` rows are scanned."""
        return max(first, last - WINDOW) if self._is_scanning() else first

    def _is_scanning(self) -> bool:
        """Whether a filter without an index was chosen."""
        return any(spec.used_parameters for spec in self.filter_specs if is_unindexed(spec))

    def date_links(self) -> dict[str, Any]:
        """What the template of the date hierarchy shows.

        Django itself queries all distinct days; the first and the last are enough.
        """
        field = str(self.date_hierarchy)
        rows = self.model._default_manager
        # two queries, because SQLite scans the whole index for both in one
        first, last = rows.aggregate(at=Min(field))["at"], rows.aggregate(at=Max(field))["at"]
        if first is None:
            return {"show": False}
        parts = (self.params.get(f"{field}__{part}", "") for part in DATE_PARTS)
        back, choices = date_choices(
            timezone.localtime(first).date(),
            timezone.localtime(last).date(),
            tuple(int(part) for part in takewhile(bool, parts)),
        )
        return {
            "show": True,
            "back": back and self._link(back),
            "choices": [self._link(choice) for choice in choices],
        }

    def _link(self, choice: Choice) -> dict[str, str]:
        names = (f"{self.date_hierarchy}__{part}" for part in DATE_PARTS)
        parts = dict(zip(names, choice.parts, strict=False))
        query = self.get_query_string(parts, [f"{self.date_hierarchy}__"])
        return {"title": choice.title, "link": query}


def is_unindexed(spec: Any) -> bool:
    """Whether a list filter is marked as one without an index."""
    return getattr(spec, "unindexed", False)


def date_choices(
    first: date, last: date, chosen: tuple[int, ...]
) -> tuple[Choice | None, Sequence[Choice]]:
    """The link back, and the next choices. A level with a single choice is skipped."""
    spans = date_parts(first, last, chosen)
    auto = chosen
    while len(auto) < 2 and len(spans) == 1:
        auto = spans[0]
        spans = date_parts(first, last, auto)
    back = Choice(_title(chosen[:-1]), chosen[:-1]) if chosen else None
    return back, [Choice(_title(parts), parts) for parts in spans]


def date_parts(first: date, last: date, chosen: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The years, the months of a year, or the days of a month between two dates."""
    low, high = (first.year, first.month, first.day), (last.year, last.month, last.day)
    size = min(len(chosen) + 1, 3)
    if len(chosen) == 3:
        return [chosen]
    ranges: dict[int, Callable[[], range]] = {
        0: lambda: range(first.year, last.year + 1),
        1: lambda: range(1, 13),
        2: lambda: range(1, calendar.monthrange(*chosen[:2])[1] + 1),
    }
    candidates = ((*chosen, part) for part in ranges[len(chosen)]())
    return [parts for parts in candidates if low[:size] <= parts <= high[:size]]


def _title(parts: tuple[int, ...]) -> str:
    match parts:
        case (year,):
            return str(year)
        case (year, month):
            return f"{calendar.month_name[month]} {year}"
        case (year, month, day):
            return f"{day} {calendar.month_abbr[month]}"
    return "All dates"
