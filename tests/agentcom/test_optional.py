"""What a process does not load at its start."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agentcom.optional import hidden
from lab.harness.store import ROOT, environment

LOADED = "import sys, agentcom.asgi; print(*sys.modules)"


@pytest.mark.sqlite_only
def test_packages_that_nothing_uses_are_not_loaded(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        cwd=ROOT,
        env=environment(AGENTCOM_DATA_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = set(done.stdout.split())
    assert "rest_framework.serializers" in loaded
    assert not loaded & {"psycopg", "requests", "yaml", "pygments", "markdown"}


def test_what_is_hidden_is_there_again_afterwards():
    sys.modules.pop("colorsys", None)
    with hidden(("colorsys", "sys")):
        import sys as still_there

        assert still_there is sys
        with pytest.raises(ImportError):
            import colorsys
    import colorsys

    assert colorsys.rgb_to_hls(0, 0, 0) == (0, 0, 0)
