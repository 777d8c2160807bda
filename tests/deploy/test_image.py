"""The image without Docker: rules by reading it, steps by doing them, the wheel by building it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from flagd_server.config import Settings
from tests.deploy.dockerfile import Stage, read
from tests.end_to_end.processes import REPOSITORY, ServerProcess
from tests.waiting import eventually

NOBODY = 10_001
BUILD, IMAGE = read(REPOSITORY / "Dockerfile")
LOCK = REPOSITORY / "deploy" / "image" / "requirements.lock"


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean_environment() -> dict[str, str]:
    dropped = ("PYTHONPATH", "GIT_SHA", "SOURCE_DATE_EPOCH", "VIRTUAL_ENV")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in dropped and not name.startswith("FLAGD_")
    }


def clone(folder: Path) -> Path:
    """The sources as they are in the commit, with what has been changed since."""
    folder.mkdir(parents=True)
    run("git", "clone", "--quiet", "--no-hardlinks", str(REPOSITORY), ".", cwd=folder)
    return folder


class TestRules:
    """Those of a linter that matter here."""

    def test_no_root_by_number(self) -> None:
        user, _, group = IMAGE.last("USER").rest.partition(":")
        assert int(user) >= 10_000
        assert int(group) >= 10_000
        after = IMAGE.instructions[IMAGE.instructions.index(IMAGE.last("USER")) :]
        assert not [each for each in after if each.word in ("RUN", "COPY")]

    def test_the_database_is_in_the_volume(self) -> None:
        default = Settings.model_fields["database"].default
        assert not Path(default).is_absolute()
        assert IMAGE.last("VOLUME").as_list == [IMAGE.last("WORKDIR").rest]

    def test_nothing_but_what_is_installed_comes_from_the_build(self) -> None:
        assert [each.rest for each in IMAGE.all("COPY")] == ["--from=build /opt/flagd /opt/flagd"]

    def test_all_that_is_installed_has_a_hash(self) -> None:
        installs = [each.rest for each in BUILD.all("RUN") if " install " in each.rest]
        assert len(installs) == 3
        for line in installs:
            assert "--no-deps" in line
            assert "--require-hashes" in line or "--no-index" in line
        assert not [each for each in IMAGE.all("RUN") if "pip" in each.rest]

    def test_the_image_installs_what_is_tested(self) -> None:
        everything = pins(REPOSITORY / "requirements.lock")
        for lock in (LOCK, LOCK.with_name("build.lock")):
            assert pins(lock) <= everything, "make lock"

    def test_signals_reach_the_server_and_health_needs_no_shell(self) -> None:
        assert IMAGE.last("ENTRYPOINT").as_list == ["flagd-server"]
        assert IMAGE.last("CMD").as_list == ["serve"]
        assert IMAGE.last("STOPSIGNAL").rest == "SIGTERM"
        _, command = IMAGE.last("HEALTHCHECK").rest.split(" CMD ")
        assert json.loads(command) == ["flagd-server", "health"]

    def test_images_have_versions_and_labels_the_commit(self) -> None:
        (argument,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", dockerfile_text(), re.MULTILINE)
        assert re.fullmatch(r"python:3\.\d+-slim-\w+", argument)
        assert {BUILD.image, IMAGE.image} == {"${PYTHON_IMAGE}"}
        assert IMAGE.pairs("LABEL")["org.opencontainers.image.revision"] == "${GIT_SHA}"

    def test_what_is_copied_is_in_the_context_and_nothing_else_is(self) -> None:
        ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
        assert ignored[1] == "*"
        let_in = {line[1:].rstrip("/") for line in ignored if line.startswith("!")}
        copied = {word.rstrip("/") for each in BUILD.all("COPY") for word in each.rest.split()[:-1]}
        assert {re.sub(r"/\w+\.lock$", "/*.lock", name) for name in copied} == let_in
        for name in copied:
            assert (REPOSITORY / name).exists(), name


def pins(lock: Path) -> set[tuple[str, frozenset[str]]]:
    """Return name with version, and the hashes; where each is wanted may differ."""
    return {
        (each.split()[0], frozenset(re.findall(r"sha256:[0-9a-f]{64}", each)))
        for each in re.split(r"\n(?=[^\s#])", lock.read_text())
        if "==" in each
    }


def dockerfile_text() -> str:
    return (REPOSITORY / "Dockerfile").read_text()


def test_the_same_commit_gives_the_same_wheel(tmp_path: Path) -> None:
    first, second = clone(tmp_path / "a"), clone(tmp_path / "elsewhere" / "b")
    for place in (second, *second.rglob("*")):
        if ".git" not in place.parts:
            os.utime(place, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    built = [build(first, umask=0o022), build(second, umask=0o077, TZ="Asia/Tokyo", LANG="C")]
    assert built[0].name == built[1].name
    digests = {hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in built}
    assert len(digests) == 1
    said = json.loads(zipfile.ZipFile(built[0]).read("flagd_server/build.json"))
    made = int(run("git", "show", "-s", "--format=%ct", cwd=first))
    assert said == {"git_sha": run("git", "rev-parse", "HEAD", cwd=first).strip(),
                    "source_date_epoch": made}  # fmt: skip
    (first / "flagd_server" / "clock.py").write_text('"""Changed."""\n')
    said = json.loads(zipfile.ZipFile(build(first)).read("flagd_server/build.json"))
    assert said["git_sha"].endswith("-dirty")


def build(folder: Path, umask: int = 0o022, **environment: str) -> Path:
    before = os.umask(umask)
    try:
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "out",
            cwd=folder, **environment)  # fmt: skip
    finally:
        os.umask(before)
    (wheel,) = (folder / "out").glob("*.whl")
    return wheel


class _Built:
    """The Dockerfile done in a folder: `/opt/…` and `/src` lie below it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.source = folder / "src"
        self.programs = folder / "opt/flagd/bin"
        self.sha = run("git", "rev-parse", "HEAD", cwd=REPOSITORY).strip()
        self._do(BUILD)

    def _do(self, stage: Stage) -> None:
        environment = {**stage.pairs("ENV"), "GIT_SHA": self.sha, "SOURCE_DATE_EPOCH": "1795000000"}
        self.source.mkdir()
        for each in stage.instructions:
            if each.word == "COPY":
                *sources, target = each.rest.split()
                self._copy(sources, target)
            elif each.word == "RUN":
                command = each.rest.replace("/opt/", f"{self._folder}/opt/")
                # Its Python is the one that the image has.
                command = re.sub(r"^python ", f"{base_python()} ", command)
                command = re.sub(r"(^|&& )pip ", rf"\1{sys.executable} -m pip ", command)
                run("sh", "-euc", command, cwd=self.source, **environment)

    def _copy(self, sources: list[str], target: str) -> None:
        for name in sources:
            origin = REPOSITORY / name
            if origin.is_dir():
                shutil.copytree(
                    origin, self.source / target, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                place = self.source / target
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, place)


def base_python() -> str:
    """A Python that others than root may run, where there is one."""
    system = Path("/usr/bin/python3")
    if os.getuid() != 0 or not system.exists():
        return sys.executable
    return str(system)


@pytest.fixture(scope="module")
def built() -> Iterator[_Built]:
    # Not pytest's folder: that is its owner's alone, and the server runs as somebody else.
    folder = Path(tempfile.mkdtemp(prefix="flagd-image-"))
    folder.chmod(0o755)
    try:
        image = _Built(folder)
        for place in (folder, *folder.rglob("*")):
            if not place.is_symlink():
                place.chmod(place.stat().st_mode & ~0o222)
        yield image
    finally:
        for place in (folder, *folder.rglob("*")):
            if place.is_dir() and not place.is_symlink():
                place.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.timeout(600)  # sixty packages are installed first
def test_what_is_built_serves_without_root_and_writes_only_its_data(built: _Built) -> None:
    """As the image runs it: its user, its variables, its command, its health check."""
    data = Path(tempfile.mkdtemp(prefix="flagd-data-"))
    is_root = os.getuid() == 0
    if is_root:
        os.chown(data, NOBODY, NOBODY)
    variables = {
        "PATH": f"{built.programs}:/usr/bin:/bin",
        **{name: value for name, value in IMAGE.pairs("ENV").items() if name != "PATH"},
        "FLAGD_HOST": "127.0.0.1",  # nobody else needs to reach a test
        "FLAGD_PORT": "0",
        "FLAGD_DATABASE": str(data / Settings.model_fields["database"].default),
        "FLAGD_INITIAL_TOKENS_FILE": str(data / "tokens.json"),
    }
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if is_root else {}
    program = str(built.programs / IMAGE.last("ENTRYPOINT").as_list[0])
    server = ServerProcess(IMAGE.last("CMD").as_list, variables, program, **user)
    try:
        port = str(server.port)
        # It waits 3 s for an answer, for which a machine that pauses may take longer.
        eventually(lambda: health(program, variables, port, user) == (0, "ok\n"))
        eventually(lambda: health(program, variables, port, user, "--ready") == (0, "ready\n"))
        told = fetch(f"{server.url}/version")
        assert told["git_sha"] == built.sha
        assert told["built_at"] == "2026-11-18T11:06:40.000Z"
        assert server.stop() == 0
        assert health(program, variables, port, user)[0] == 1
    finally:
        server.stop()
        wrote = {path.name for path in data.iterdir()}
        shutil.rmtree(data)
    assert {"flagd.db", "tokens.json"} <= wrote
    assert "Traceback" not in server.log


def health(
    program: str, variables: Mapping[str, str], port: str, user: Mapping[str, object], *more: str
) -> tuple[int, str]:
    words = json.loads(IMAGE.last("HEALTHCHECK").rest.split(" CMD ")[1])[1:]
    done = subprocess.run(
        [program, *words, *more, "--port", port],
        env=dict(variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **user,  # type: ignore[call-overload]
    )
    return done.returncode, done.stdout


def fetch(url: str) -> dict[str, str]:
    with urllib.request.urlopen(url, timeout=60) as answer:
        document = json.loads(answer.read())
    assert isinstance(document, dict)
    return document
