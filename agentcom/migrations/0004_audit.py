"""The audit trail, and what keeps it append-only.

A later migration that copies the table on SQLite (most changes of a column do) loses its triggers,
and has to run `protect` again.
"""

from typing import Any

from django.db import migrations, models

NO_CHANGE = 'an audit entry is never changed'
NO_DELETE = 'an audit entry is kept for a day at least'
ON_SQLITE = (
    f"""
    CREATE TRIGGER audit_no_change BEFORE UPDATE ON agentcom_auditentry
    BEGIN SELECT RAISE(ABORT, '{NO_CHANGE}'); END
    """,
    f"""
    CREATE TRIGGER audit_no_delete BEFORE DELETE ON agentcom_auditentry
    WHEN OLD.at > strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 day')
    BEGIN SELECT RAISE(ABORT, '{NO_DELETE}'); END
    """,
)
ON_POSTGRESQL = (
    f"""
    CREATE FUNCTION agentcom_audit_protect() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'UPDATE' THEN
            RAISE EXCEPTION '{NO_CHANGE}' USING ERRCODE = 'restrict_violation';
        ELSIF OLD.at > clock_timestamp() - interval '1 day' THEN
            RAISE EXCEPTION '{NO_DELETE}' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN OLD;
    END $$
    """,
    """
    CREATE TRIGGER audit_protect BEFORE UPDATE OR DELETE ON agentcom_auditentry
    FOR EACH ROW EXECUTE FUNCTION agentcom_audit_protect()
    """,
)


def protect(apps: Any, schema_editor: Any) -> None:
    is_postgresql = schema_editor.connection.vendor == 'postgresql'
    for statement in ON_POSTGRESQL if is_postgresql else ON_SQLITE:
        schema_editor.execute(statement, None)


def unprotect(apps: Any, schema_editor: Any) -> None:
    """SQLite drops triggers with their table; PostgreSQL keeps the function."""
    if schema_editor.connection.vendor == 'postgresql':
        schema_editor.execute('DROP TRIGGER audit_protect ON agentcom_auditentry', None)
        schema_editor.execute('DROP FUNCTION agentcom_audit_protect()', None)


class Migration(migrations.Migration):

    dependencies = [
        ('agentcom', '0003_event_actor'),
    ]

    operations = [
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.CharField(max_length=16, unique=True)),
                ('at', models.DateTimeField()),
                ('actor', models.CharField(max_length=160)),
                ('address', models.CharField(max_length=64)),
                ('what', models.CharField(max_length=32)),
                ('subject', models.CharField(max_length=200)),
                ('reason', models.CharField(max_length=500)),
                ('outcome', models.CharField(choices=[('done', 'Done'), ('refused', 'Refused'), ('failed', 'Failed')], max_length=8)),
                ('detail', models.CharField(max_length=500)),
                ('count', models.IntegerField(default=1)),
            ],
            options={
                'verbose_name_plural': 'audit entries',
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['actor', 'address'], name='audit_actor'), models.Index(fields=['subject'], name='audit_subject'), models.Index(fields=['address'], name='audit_address'), models.Index(fields=['at'], name='audit_at')],
            },
        ),
        migrations.RunPython(protect, unprotect),
    ]
