

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tasks', '0003_causes'),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name='task',
            name='task_queue',
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(condition=models.Q(('status', 'queued')), fields=['priority', 'needs', 'number'], name='task_queue'),
        ),
    ]
