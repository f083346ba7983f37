"""The counters' tables, which the dashboard's first migrations made, get the name of their room."""

from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('dashboard', '0003_rooms'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name='Minute',
                    fields=[
                        ('start', models.DateTimeField(primary_key=True, serialize=False)),
                        ('completed', models.IntegerField(default=0)),
                        ('failed', models.IntegerField(default=0)),
                        ('duration_ms', models.BigIntegerField(default=0)),
                        ('tokens', models.BigIntegerField(default=0)),
                    ],
                    options={
                        'ordering': ['-start'],
                    },
                ),
                migrations.CreateModel(
                    name='AgentHour',
                    fields=[
                        ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                        ('start', models.DateTimeField()),
                        ('agent_id', models.CharField(max_length=128)),
                        ('completed', models.IntegerField(default=0)),
                        ('failed', models.IntegerField(default=0)),
                    ],
                    options={
                        'constraints': [models.UniqueConstraint(fields=('start', 'agent_id'), name='agent_hour')],
                    },
                ),
                migrations.CreateModel(
                    name='DurationCount',
                    fields=[
                        ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                        ('minute', models.IntegerField()),
                        ('bucket', models.SmallIntegerField()),
                        ('count', models.IntegerField(default=0)),
                    ],
                    options={
                        'constraints': [models.UniqueConstraint(fields=('minute', 'bucket'), name='duration_count')],
                    },
                ),
                migrations.CreateModel(
                    name='LaneMinute',
                    fields=[
                        ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                        ('start', models.DateTimeField()),
                        ('priority', models.SmallIntegerField()),
                        ('added', models.IntegerField(default=0)),
                        ('drained', models.IntegerField(default=0)),
                    ],
                    options={
                        'constraints': [models.UniqueConstraint(fields=('start', 'priority'), name='lane_minute')],
                    },
                ),
            ],
        ),
    ]
