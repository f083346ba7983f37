"""What the dashboard counted and noted goes to `counters` and `worker`, rows and permissions with it.

Tables are renamed, so nothing is copied. Content types are moved, so whom a permission was given
keeps it, and the admin's history keeps its links.
"""

from typing import Any

from django.db import migrations

ROOMS = {
    'counters': ['Minute', 'LaneMinute', 'AgentHour', 'DurationCount'],
    'worker': ['HealthReport', 'QueueSample'],
}


def move_content_types(apps: Any, schema_editor: Any) -> None:
    types = apps.get_model('contenttypes', 'ContentType').objects.using(schema_editor.connection.alias)
    for room, models in ROOMS.items():
        names = [name.lower() for name in models]
        types.filter(app_label='dashboard', model__in=names).update(app_label=room)


class Migration(migrations.Migration):

    dependencies = [
        ('contenttypes', '0002_remove_content_type_name'),
        ('dashboard', '0002_counters'),
    ]

    operations = [
        migrations.RunPython(move_content_types, migrations.RunPython.noop, elidable=True),
        *(
            migrations.SeparateDatabaseAndState(
                database_operations=[migrations.AlterModelTable(name, f'{room}_{name.lower()}')],
                state_operations=[migrations.DeleteModel(name)],
            )
            for room, models in ROOMS.items()
            for name in models
        ),
    ]
