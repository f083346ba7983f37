from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("agentcom", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="node",
            name="scarce_files",
            field=models.IntegerField(default=0),
        ),
    ]
