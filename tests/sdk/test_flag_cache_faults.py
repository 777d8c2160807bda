"""What disks and other users do: it costs the cache, and nothing else."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from flagd_sdk import ClientStatus, FlagClient
from flagd_sdk.config import ClientConfig
from flagd_sdk.flag_cache import FlagCache
from flagd_sdk.notices import Notices
from tests.sdk.cache_processes import fork
from tests.sdk.fakes import FakeClock, MemoryTransport, flag, flag_set

NOBODY = 65_534
is_root = os.geteuid() == 0
TOKEN = "fr_sdk_production_SeCrEt"


def cache(folder: Path | str | None, token: str = TOKEN) -> FlagCache:
    config = ClientConfig(url="http://a", token=token, cache_dir=folder)
    return FlagCache(config, Notices(FakeClock()))


def document(sequence: int, flags: int = 1) -> Mapping[str, object]:
    return flag_set(*(flag(f"flag-{number}") for number in range(flags)), sequence=sequence)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a flag set of sequence 5."""
    kept = cache(tmp_path)
    assert kept.path is not None
    assert kept.save(document(5), 5)
    return Path(kept.path)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can enter, as pytest's own can't be."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def in_a_child(work: Callable[[], None]) -> None:
    """Run this in a process of its own, which may give up its rights."""
    _, status = os.waitpid(fork(work), 0)
    assert status == 0


def drop_rights() -> None:
    if is_root:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


# --- damage -------------------------------------------------------------------------------------


def test_no_flipped_bit_and_no_missing_end_goes_unnoticed(tmp_path: Path, path: Path) -> None:
    raw = path.read_bytes()
    for index in range(len(raw)):
        for damaged in (
            raw[:index],
            raw[:index] + bytes([raw[index] ^ 1 << index % 8]) + raw[index + 1 :],
            raw[:index] + raw[index + 1 :],
        ):
            path.write_bytes(damaged)
            assert cache(tmp_path).load() is None, index
    path.write_bytes(raw)
    assert cache(tmp_path).load() == document(5)


@pytest.mark.parametrize("sequence", [2**53, 10**80])
def test_a_sequence_beyond_all_time_does_not_keep_the_file_for_ever(
    tmp_path: Path, sequence: int
) -> None:
    cache(tmp_path).save({**document(5), "sequence": sequence}, sequence)
    transport = MemoryTransport()
    transport.fetches.append(flag_set(flag(), sequence=6))
    with FlagClient("http://a", TOKEN, cache_dir=tmp_path, transport=transport) as flags:
        assert flags.wait_until_ready(60)
        assert flags.close(60)
    assert cache(tmp_path).load() == flag_set(flag(), sequence=6)


def test_values_of_another_environment_are_never_served(tmp_path: Path) -> None:
    staging = {**flag_set(flag("on", on=100_000), sequence=9), "environment": "staging"}
    cache(tmp_path).save(staging, 9)  # as whoever copies files between folders has it
    transport = MemoryTransport()
    with FlagClient("http://a", TOKEN, cache_dir=tmp_path, transport=transport) as flags:
        assert flags.is_enabled("on", False) is False
        assert flags.status is not ClientStatus.STALE


# --- what stands in its place -------------------------------------------------------------------


def test_a_folder_in_its_place_costs_only_the_cache(tmp_path: Path, path: Path) -> None:
    path.unlink()
    path.mkdir()
    kept = cache(tmp_path)
    assert kept.load() is None
    assert kept.save(document(6), 6)
    assert path.is_dir()
    assert not list(tmp_path.glob("*.new"))


def test_a_link_in_its_place_is_not_followed_but_replaced(tmp_path: Path, path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    before = elsewhere.read_bytes()
    path.symlink_to(elsewhere)
    kept = cache(tmp_path)
    assert kept.load() is None
    assert kept.save(document(6), 6)
    assert not path.is_symlink()
    assert cache(tmp_path).load() == document(6)
    assert elsewhere.read_bytes() == before


@pytest.mark.parametrize("end", [".new", ".lock"])
def test_nothing_is_written_through_a_link(tmp_path: Path, path: Path, end: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    beside = path.with_name(path.name + end)
    beside.unlink(missing_ok=True)
    beside.symlink_to(victim)
    assert cache(tmp_path).save(document(6), 6)
    assert victim.read_text() == "precious"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("end", ["", ".new", ".lock"])
def test_nothing_waits_for_a_named_pipe(tmp_path: Path, path: Path, end: str) -> None:
    beside = path.with_name(path.name + end)
    beside.unlink(missing_ok=True)
    os.mkfifo(beside)
    kept = cache(tmp_path)
    assert kept.load() == (document(5) if end else None)
    assert kept.save(document(6), 6)
    assert cache(tmp_path).load() == document(6)


def test_what_others_can_write_is_not_used_but_replaced(tmp_path: Path, path: Path) -> None:
    path.chmod(0o666)
    kept = cache(tmp_path)
    assert kept.load() is None
    assert kept.save(document(4), 4)
    assert cache(tmp_path).load() == document(4)
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(not is_root, reason="only root can give files away")
def test_another_user_s_file_is_not_used(tmp_path: Path, path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)
    assert cache(tmp_path).load() is None


# --- where nothing can be written ---------------------------------------------------------------


def test_a_read_only_folder_can_be_read(open_folder: Path) -> None:
    assert cache(open_folder).save(document(5), 5)
    for path in open_folder.iterdir():
        path.chmod(0o444)
    open_folder.chmod(0o555)

    def work() -> None:
        drop_rights()
        kept = cache(open_folder)
        assert kept.load() == document(5)
        assert kept.save(document(6), 6)
        assert kept.load() == document(5)

    in_a_child(work)
    open_folder.chmod(0o755)


def test_a_folder_that_may_not_be_entered_costs_only_the_cache(open_folder: Path) -> None:
    assert cache(open_folder).save(document(5), 5)
    open_folder.chmod(0o000)

    def work() -> None:
        drop_rights()
        for kept in (cache(open_folder), cache(open_folder / "below")):
            assert kept.load() is None
            assert kept.save(document(6), 6)

    in_a_child(work)
    open_folder.chmod(0o755)


@pytest.mark.parametrize("home", [None, "", "relative", "/proc", "/dev/null", "/nowhere/at/all"])
def test_a_home_that_is_none_costs_only_the_cache(
    home: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", home)

    def work() -> None:
        drop_rights()
        kept = cache("auto")
        assert kept.load() is None
        assert kept.save(document(5), 5)

    in_a_child(work)
    assert not list(tmp_path.iterdir()), "nor is it kept wherever the process happens to run"


def test_a_full_disk_keeps_the_flag_set_from_before(tmp_path: Path, path: Path) -> None:
    def work() -> None:
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
        assert cache(tmp_path).save(document(6, flags=50), 6)

    in_a_child(work)
    assert cache(tmp_path).load() == document(5)
    assert not list(tmp_path.glob("*.new")), "no space is taken by what is of no use"


@pytest.mark.skipif(not is_root, reason="only root can mount a disk")
def test_so_does_a_disk_without_a_byte_left(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        assert cache(disk).save(document(5), 5)
        with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb") as filler:
            filler.write(b"x" * 100_000)
        assert cache(disk).save(document(6, flags=50), 6)
        assert cache(disk).load() == document(5)
        (disk / "filler").unlink()
        assert cache(disk).save(document(7), 7)
        assert cache(disk).load() == document(7)
    finally:
        subprocess.run(["umount", disk], check=True)


# --- processes ----------------------------------------------------------------------------------

# How long their thousands of forks and writes take is the machine's affair; none waits for another.
PROCESSES_S = 600


def run(*arguments: object) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "tests.sdk.cache_processes", *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=PROCESSES_S - 20,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.timeout(PROCESSES_S)
def test_killed_a_thousand_times_while_writing_it_never_leaves_a_half_file(tmp_path: Path) -> None:
    told = re.fullmatch(r"1000 killed: (\d+) after a write, (\d+) in the middle of one\n",
                        run("killed", tmp_path, 1_000))  # fmt: skip
    assert told is not None
    writes, in_the_middle = map(int, told.groups())
    print(told[0])
    assert writes > 5
    assert in_the_middle > 20


@pytest.mark.timeout(PROCESSES_S)
def test_processes_that_share_it_never_read_a_half_file_nor_an_older_one(tmp_path: Path) -> None:
    assert "is kept" in run("shared", tmp_path, 200)
    (path,) = tmp_path.glob("*.flags")
    assert json.loads(path.read_bytes().partition(b"\n")[2])


def test_a_child_forked_while_its_parent_writes_keeps_nobody_from_writing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    children: list[int] = []

    def live_on() -> None:
        os.close(writing)
        os.read(reading, 1)  # until the parent closes its end

    def fork_and_replace(old: str, new: str) -> None:
        children.append(fork(live_on))
        os.rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fork_and_replace)
        assert cache(path.parent).save(document(6), 6)
    try:
        assert cache(path.parent).save(document(7), 7)
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(children[0], 0)
