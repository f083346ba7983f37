from __future__ import annotations

from django.contrib import admin

from agentcom.admin.read_only import ReadOnlyAdmin
from agentcom.admin.shows import NOTHING, moment, span
from counters.models import Minute


@admin.register(Minute)
class MinuteAdmin(ReadOnlyAdmin):
    list_display = [moment("start", "minute"), "completed", "failed", "average", "tokens"]
    date_hierarchy = "start"
    fieldsets = [
        (None, {"fields": [moment("start", "minute"), "completed", "failed", "average", "tokens"]})
    ]

    @admin.display(description="took on average")
    def average(self, minute: Minute) -> str:
        return span(minute.duration_ms / minute.completed) if minute.completed else NOTHING
