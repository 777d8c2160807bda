"""What `import flagd_server` promises."""

import subprocess
import sys

import pytest

import flagd_server


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


def test_importing_it_loads_nothing_of_the_extra() -> None:
    code = (
        "import sys, flagd_server\n"
        "print(sorted({'flask', 'pydantic', 'sqlite_utils', 'gunicorn'} & sys.modules.keys()))"
    )
    assert _run(code).stdout == "[]\n"


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys\nsys.modules['flask'] = None\nfrom flagd_server import create_app\n"
    done = _run(code)
    assert done.returncode == 1
    assert "pip install 'flagd-release[server]'" in done.stderr


def test_a_module_of_its_own_that_is_missing_is_not_blamed_on_the_extra() -> None:
    code = (
        "import sys\n"
        "sys.modules['flagd_server.hub.local'] = None\n"
        "from flagd_server import create_app\n"
    )
    done = _run(code)
    assert done.returncode == 1
    assert "pip install" not in done.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    assert flagd_server.__version__.count(".") == 2


def test_what_it_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        flagd_server.nothing  # noqa: B018
