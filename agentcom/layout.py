"""Whether AgentCom runs from a checkout or was installed by pip, and what differs then.

Imported before Django.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED = (PACKAGE / "rooms").is_dir()  # only a wheel has this folder, see pyproject.toml
# The folder of the rooms and the templates.
ROOMS = PACKAGE / "rooms" if INSTALLED else PACKAGE.parent

# The command in a sentence, and as it is typed; in a checkout, in its folder.
COMMAND = "agentcom" if INSTALLED else "manage.py"
TYPED_COMMAND = "agentcom" if INSTALLED else ".venv/bin/python manage.py"
TYPED_CLIENT = "agentcom-client" if INSTALLED else ".venv/bin/agentcom-client"


def relative_to() -> Path:
    """Where the relative paths of settings begin."""
    return Path.cwd() if INSTALLED else ROOMS


def default_data_dir() -> str:
    """The folder of the data unless AGENTCOM_DATA_DIR names another one."""
    if not INSTALLED:
        return "var"
    import platformdirs  # `manage.py` has to be able to say that nothing is installed yet

    return platformdirs.user_data_dir("agentcom", appauthor=False)
