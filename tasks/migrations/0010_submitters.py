from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tasks", "0009_steering")]

    operations = [
        migrations.AddIndex(
            "task", models.Index(fields=["submitted_by", "number"], name="task_submitter")
        ),
        migrations.AddIndex(
            "task",
            models.Index(
                condition=models.Q(("died_at__isnull", False)),
                fields=["submitted_by", "-died_at", "number"],
                name="task_dead_own",
            ),
        ),
    ]
