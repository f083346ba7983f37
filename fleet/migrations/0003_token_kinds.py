from django.db import migrations, models

from agentcom.schema import AddColumn

KINDS = [
    ("agent", "Agent"),
    ("submitter", "Submitter"),
    ("viewer", "Viewer"),
    ("operator", "Operator"),
]


class Migration(migrations.Migration):
    dependencies = [("agents", "0002_holds")]

    operations = [
        migrations.RenameField("agenttoken", "agent_id", "name"),
        migrations.AlterModelOptions(
            "agenttoken", {"ordering": ["name", "created_at"], "verbose_name": "token"}
        ),
        AddColumn("agenttoken", "kind", models.CharField(choices=KINDS, default="agent", max_length=12)),
        AddColumn("agenttoken", "capabilities", models.JSONField(blank=True, default=list)),
        AddColumn("agenttoken", "lanes", models.JSONField(blank=True, default=list)),
        AddColumn("agenttoken", "all_tasks", models.BooleanField(default=False)),
        AddColumn("agenttoken", "origin", models.CharField(blank=True, default="", max_length=64)),
        AddColumn("agenttoken", "expires_at", models.DateTimeField(blank=True, null=True)),
        AddColumn("agenttoken", "last_used_at", models.DateTimeField(blank=True, null=True)),
        AddColumn(
            "agenttoken", "last_used_from", models.CharField(blank=True, default="", max_length=64)
        ),
        migrations.AddIndex(
            "agenttoken",
            models.Index(
                condition=models.Q(("expires_at__isnull", False), ("revoked_at", None)),
                fields=["expires_at"],
                name="token_expires",
            ),
        ),
        migrations.CreateModel(
            name="Enrolment",
            fields=[
                ("name", models.CharField(db_index=True, max_length=128)),
                ("kind", models.CharField(choices=KINDS, default="agent", max_length=12)),
                ("capabilities", models.JSONField(blank=True, default=list)),
                ("lanes", models.JSONField(blank=True, default=list)),
                ("all_tasks", models.BooleanField(default=False)),
                ("code_hash", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                ("token_expires_at", models.DateTimeField(blank=True, null=True)),
                ("token_hash", models.CharField(blank=True, default="", max_length=64)),
                ("used_at", models.DateTimeField(blank=True, null=True)),
                ("used_from", models.CharField(blank=True, default="", max_length=64)),
            ],
            options={
                "ordering": ["-created_at"],
                "indexes": [models.Index(fields=["expires_at"], name="enrolment_expires")],
            },
        ),
    ]
