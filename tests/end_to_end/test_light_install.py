"""What `pip install flagd-release` brings, in a clean environment without any extra."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
BASE = ("cachetools", "mmh3", "requests", "urllib3")

PROGRAM = """
import sys
from flagd_sdk import FlagClient

client = FlagClient("http://127.0.0.1:9", "fr_sdk_production_x", cache_dir=None, bootstrap={
    "environment": "production", "sequence": 1, "unit_key": "00" * 16, "segments": {},
    "flags": {"new": {"key": "new", "type": "boolean", "version": 1, "enabled": True,
                      "variants": {"on": True, "off": False}, "off_variant": "off", "rules": [],
                      "default_serve": {"variant": "on"}, "kill": None}}})
with client.scope({"targetingKey": "user-1"}):
    assert client.is_enabled("new")
client.close(0.1)
try:
    from flagd_server import create_app
except ImportError as error:
    assert "flagd-release[server]" in str(error), error
else:
    raise AssertionError("the server came without its extra")
heavy = {"flask", "pydantic", "sqlite_utils", "gunicorn", "re2"} & set(sys.modules)
assert not heavy, heavy
"""


# On a busy machine, from an index that may be busy too.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        "--wheel-dir", str(folder), str(REPOSITORY))  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


def run(*command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_packages_and_their_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "flagd_sdk",
        "flagd_server",
        "pytest_flagd",
    }
    assert {"flagd_sdk/py.typed", "flagd_server/py.typed"} <= set(names)


def test_the_sdk_works_with_its_three_dependencies_alone(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel))
    installed = run(python, "-m", "pip", "list", "--format=freeze")
    for name in BASE:
        assert f"{name}==" in installed
    assert "flask" not in installed.lower()
    run(python, "-W", "error", "-c", PROGRAM)
    without = subprocess.run(
        [tmp_path / "venv" / "bin" / "flagctl", "list"], capture_output=True, text=True, check=False
    )
    assert (without.returncode, without.stdout) == (2, "")
    assert "flagd-release[cli]" in without.stderr
    assert "Traceback" not in without.stderr
