from __future__ import annotations

from django.contrib import admin

from agentcom.admin.read_only import ReadOnlyAdmin
from agentcom.admin.shows import as_json, badge, moment, short
from worker.models import HealthReport, QueueSample


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


@admin.register(QueueSample)
class QueueSampleAdmin(ReadOnlyAdmin):
    list_display = [moment("at", "taken"), "depth"]
    date_hierarchy = "at"
    fieldsets = [(None, {"fields": [moment("at", "taken"), "depth"]})]
