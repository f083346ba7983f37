"""The worker's tables, which the dashboard's first migrations made, get the name of their room."""

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
                    name='HealthReport',
                    fields=[
                        ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                        ('status', models.CharField(max_length=8)),
                        ('details', models.JSONField(default=list)),
                        ('created_at', models.DateTimeField(db_index=True)),
                        ('reported_at', models.DateTimeField()),
                    ],
                    options={
                        'ordering': ['-id'],
                    },
                ),
                migrations.CreateModel(
                    name='QueueSample',
                    fields=[
                        ('at', models.DateTimeField(primary_key=True, serialize=False)),
                        ('depth', models.IntegerField()),
                    ],
                    options={
                        'ordering': ['-at'],
                    },
                ),
            ],
        ),
    ]
