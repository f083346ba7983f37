from __future__ import annotations

from typing import Any

from django import template

register = template.Library()


@register.inclusion_tag("admin/date_hierarchy.html")
def date_links(changelist: Any) -> dict[str, Any]:
    """The date hierarchy of a `BoundedChangeList`."""
    return changelist.date_links()  # type: ignore[no-any-return]
