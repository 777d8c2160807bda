import fcntl
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from flagd_sdk.config import ClientConfig
from flagd_sdk.core.local_kill import Evidence, LocalKill, parted
from flagd_sdk.flag_cache import FlagCache
from flagd_sdk.notices import Notices
from tests.sdk.fakes import FakeClock, flag, flag_set

TOKEN = "fr_sdk_production_SeCrEt"


def cache(folder: Path | str | None, token: str = TOKEN, url: str = "http://a") -> FlagCache:
    return FlagCache(ClientConfig(url=url, token=token, cache_dir=folder), Notices(FakeClock()))


def document(sequence: int) -> Mapping[str, object]:
    return flag_set(flag(), sequence=sequence)


def test_what_was_saved_is_loaded_by_the_next_process(tmp_path: Path) -> None:
    assert cache(tmp_path).load() is None
    assert cache(tmp_path / "new" / "folder").save(document(5), 5)
    assert cache(tmp_path / "new" / "folder").load() == document(5)


def test_servers_and_environments_do_not_share_a_file_but_secrets_do(tmp_path: Path) -> None:
    cache(tmp_path).save(document(5), 5)
    assert cache(tmp_path, url="http://b").load() is None
    assert cache(tmp_path, token="fr_sdk_staging_SeCrEt").load() is None
    assert cache(tmp_path, token="fr_sdk_production_NewOne").load() == document(5)


def test_nothing_of_the_secret_and_no_access_for_others(tmp_path: Path) -> None:
    cache(tmp_path).save(document(5), 5)
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0
        assert b"SeCrEt" not in path.read_bytes()
        assert "SeCrEt" not in path.name


def test_an_older_flag_set_never_replaces_a_newer_one(tmp_path: Path) -> None:
    ours, theirs = cache(tmp_path), cache(tmp_path)
    ours.save(document(7), 7)
    assert theirs.save(document(6), 6)
    assert cache(tmp_path).load() == document(7)
    theirs.save(document(8), 8)
    assert cache(tmp_path).load() == document(8)


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b" ",
        lambda raw: raw.replace(b"new-checkout", b"old-checkout"),
        lambda raw: raw.replace(b"set 1 5 ", b"set 1 9 "),
        lambda raw: b"\x00" * len(raw),
        lambda raw: b"",
        lambda raw: b"{}",
        lambda raw: raw.partition(b"\n")[0],
    ],
)
def test_a_damaged_file_is_ignored_told_once_and_replaced(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    cache(tmp_path).save(document(5), 5)
    (path,) = tmp_path.glob("*.flags")
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    kept = cache(tmp_path)
    assert kept.load() is None
    assert kept.load() is None
    assert len(caplog.records) == 1
    kept.save(document(6), 6)
    assert cache(tmp_path).load() == document(6)


def test_a_folder_without_write_permission_is_tolerated() -> None:
    # Nobody may write here, not even root.
    assert cache(Path("/proc/self/fd")).save(document(5), 5)


def test_a_folder_that_cannot_be_made_costs_only_the_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = cache(tmp_path / "file" / "folder")
    assert kept.save(document(5), 5)
    assert kept.save(document(6), 6)
    assert kept.load() is None
    assert len(caplog.records) == 2, "one for writing, one for reading"


def test_while_another_process_writes_it_is_tried_again_later(tmp_path: Path) -> None:
    kept = cache(tmp_path)
    kept.save(document(5), 5)
    (lock,) = tmp_path.glob("*.lock")
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not kept.save(document(6), 6)
    assert kept.save(document(6), 6)
    assert cache(tmp_path).load() == document(6)


def test_what_a_crash_left_behind_is_no_obstacle(tmp_path: Path) -> None:
    kept = cache(tmp_path)
    kept.save(document(5), 5)
    (path,) = tmp_path.glob("*.flags")
    path.with_name(path.name + ".new").write_bytes(b"half a fi")
    kept.save(document(6), 6)
    assert cache(tmp_path).load() == document(6)
    assert not list(tmp_path.glob("*.new"))


def test_the_users_cache_folder_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache("auto").save(document(5), 5)
    (path,) = tmp_path.glob("flagd-release/*.flags")
    assert json.loads(path.read_bytes().partition(b"\n")[2]) == document(5)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cache("auto").save(document(6), 6)
    assert list(tmp_path.glob("home/.cache/flagd-release/*.flags"))


def test_without_a_folder_nothing_is_kept() -> None:
    kept = cache(None)
    assert kept.save(document(5), 5)
    assert kept.load() is None


def kill(name: str = "local-1", version: int = 1) -> LocalKill:
    evidence = Evidence(
        "new-checkout", version, "default", "on", "off", "error:Boom", 16.5, 15.4, 13, 0, 0.25
    )
    return LocalKill(name, "2026-11-27T12:00:00.000Z", evidence)


def kept(folder: Path) -> tuple[object, list[str]]:
    document, kills = parted(cache(folder).load())
    return document, [each.id for each in kills]


def test_local_kills_are_kept_beside_the_flags(tmp_path: Path) -> None:
    cache(tmp_path).save(document(5), 5, [kill()])
    flags, kills = parted(cache(tmp_path).load())
    assert flags == document(5)
    assert kills == [kill()]
    cache(tmp_path).save(document(5), 5, lifted=["local-1"])
    assert cache(tmp_path).load() == document(5)


def test_processes_that_share_a_file_keep_each_others_local_kills(tmp_path: Path) -> None:
    cache(tmp_path).save(document(5), 5, [kill()])
    cache(tmp_path).save(document(6), 6)
    assert kept(tmp_path) == (document(6), ["local-1"])


def test_a_local_kill_goes_into_a_newer_file_where_it_still_stands(tmp_path: Path) -> None:
    cache(tmp_path).save(document(9), 9)
    cache(tmp_path).save(document(5), 5, [kill()])
    assert kept(tmp_path) == (document(9), ["local-1"])
    before = cache(tmp_path).path
    assert before is not None
    inode = Path(before).stat().st_ino
    cache(tmp_path).save(document(5), 5, [kill()])
    assert Path(before).stat().st_ino == inode, "nothing new, nothing written"


def test_a_local_kill_of_another_version_is_dropped(tmp_path: Path) -> None:
    cache(tmp_path).save(document(5), 5, [kill(version=1)])
    changed = flag_set(flag(version=2), sequence=6)
    cache(tmp_path).save(changed, 6)
    assert kept(tmp_path) == (changed, [])


@pytest.mark.parametrize(
    "kills", [[], {"a": 7}, {"a": {}}, {"a": {**kill().to_document(), "log_e_value": "high"}},
              {"a": {**kill().to_document(), "more": 1}}],
    ids=str,
)  # fmt: skip
def test_what_is_no_local_kill_holds_nothing_off(tmp_path: Path, kills: object) -> None:
    cache(tmp_path).save({**document(5), "local_kills": kills}, 5)
    assert kept(tmp_path) == (document(5), [])
