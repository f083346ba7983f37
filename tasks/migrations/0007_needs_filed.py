from typing import Any

from django.db import migrations, models

from tasks.needs import filed_under, needs_of

BATCH = 1_000


def file(apps: Any, schema_editor: Any) -> None:
    """What waits already is found by one of its needs as well."""
    tallies = apps.get_model("tasks", "Tally").objects
    waiting = tallies.filter(status="queued").exclude(needs="").order_by("pk")
    last = 0
    while batch := list(waiting.filter(pk__gt=last)[:BATCH]):
        for tally in batch:
            tally.filed_under = filed_under(needs_of(tally.needs))
        tallies.bulk_update(batch, ["filed_under"])
        last = batch[-1].pk


class Migration(migrations.Migration):
    dependencies = [
        ("tasks", "0006_last_said"),
    ]

    operations = [
        migrations.AddField(
            model_name="tally",
            name="filed_under",
            field=models.CharField(blank=True, default="", max_length=128),
        ),
        migrations.RunPython(file, migrations.RunPython.noop, elidable=True),
        migrations.RemoveConstraint(
            model_name="tally",
            name="tally_place",
        ),
        migrations.AddConstraint(
            model_name="tally",
            constraint=models.UniqueConstraint(
                fields=("status", "filed_under", "priority", "needs"), name="tally_place"
            ),
        ),
    ]
