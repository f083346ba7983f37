"""Migrations that do not copy a large table. On SQLite, Django copies the whole table to add a
column with a default, or to change a length that SQLite does not know anyway."""

from __future__ import annotations

from typing import Any

from django.db import migrations


class AddColumn(migrations.AddField):
    """An `AddField` that SQLite does in place too; the column keeps its default there."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        if schema_editor.connection.vendor != "sqlite":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        field = model._meta.get_field(self.name)
        definition, params = schema_editor.column_sql(model, field)
        default = schema_editor.effective_default(field)
        if default is not None:
            definition += f" DEFAULT {schema_editor.quote_value(default)}"
        if check := field.db_check(schema_editor.connection):
            definition += f" CHECK ({check})"
        table, column = (
            schema_editor.quote_name(name) for name in (model._meta.db_table, field.column)
        )
        schema_editor.execute(f"ALTER TABLE {table} ADD COLUMN {column} {definition}", params)


class AlterLength(migrations.AlterField):
    """An `AlterField` that changes only the length of a text."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        if schema_editor.connection.vendor != "sqlite":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
