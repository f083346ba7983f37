from __future__ import annotations

from django.contrib import admin

from agentcom.admin import ReadOnlyAdmin
from agentcom.admin_shows import NOTHING, as_json, badge, moment, short, span
from dashboard.models import HealthReport, Minute, QueueSample


@admin.register(HealthReport)
class HealthReportAdmin(ReadOnlyAdmin):
    list_display = [
        moment("created_at", "since"),
        moment("reported_at", "last said"),
        "light",
        "conditions",
    ]
    list_filter = ["status"]
    date_hierarchy = "created_at"
    fieldsets = [
        (
            None,
            {
                "fields": [
                    "light",
                    (moment("created_at", "since"), moment("reported_at", "last said")),
                    "conditions",
                    "as_stored",
                ]
            },
        )
    ]

    @admin.display(description="status")
    def light(self, report: HealthReport) -> str:
        return badge(report.status)

    @admin.display(description="conditions")
    def conditions(self, report: HealthReport) -> str:
        return short("; ".join(detail["message"] for detail in report.details), 300)

    @admin.display(description="as stored")
    def as_stored(self, report: HealthReport) -> str:
        return as_json(report.details)


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


@admin.register(QueueSample)
class QueueSampleAdmin(ReadOnlyAdmin):
    list_display = [moment("at", "taken"), "depth"]
    date_hierarchy = "at"
    fieldsets = [(None, {"fields": [moment("at", "taken"), "depth"]})]
