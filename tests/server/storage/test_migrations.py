"""A database of an older schema, as its server left it, opened by this one."""

import json
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from flagd_server.domain.guard_policy import complete_policy
from flagd_server.storage.migrations.sqlite import STEPS
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World, cell

BAD = "error:PaymentError"
AT = "2026-11-20T08:00:00.000Z"
OLD_POLICY = {"mode": "enforce", "control": None, "alpha": 0.002, "margin": 1.1}
OLD_CONFIGURATION = {
    "enabled": True,
    "off_variant": "off",
    "rules": [],
    "default_serve": {
        "split": {
            "bucket_by": "targeting_key",
            "salt": "new-checkout",
            "weights": {"on": 25_000, "off": 75_000},
            "allocation": [[0, 25_000, "on"], [25_000, 100_000, "off"]],
        }
    },
    "guard": OLD_POLICY,
    "kill": None,
}
# The state of a running life had its comparisons side by side, and no pairs.
OLD_STATE = {
    "first_version": 1,
    "version": 1,
    "releases": {"shop": ["v1"]},
    "guard": {
        "policy": {"alpha": 0.002, "margin": 1.1, "control": None, "off_variant": "off"},
        "started_at": 1_795_000_000.0,
        "comparisons": [],
        "controls": {"chosen": {}, "served": {}},
        "decision": None,
        "last_t": None,
    },
}


def rewrite(world: World) -> dict[str, object]:
    """Return what a configuration of this server looks like, to be sure of the old one's form."""
    with world.storage.read() as reader:
        found = reader.configuration(ENVIRONMENT, FLAG)
    assert found is not None
    return dict(found.configuration.to_document())


@pytest.fixture
def old_database(tmp_path: Path) -> Path:
    """A file with the first step only, one flag under guard, a life running, one that ended."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        db = Database(connection, execute_plugins=False)
        first = Migrations("flagd_server")
        first(name="0001_initial")(STEPS["0001_initial"])
        first.apply(db)
        db.execute(
            "INSERT INTO environments VALUES (?, 'Production', ?, 3, ?)",
            (ENVIRONMENT, b"k" * 16, AT),
        )
        db.execute(
            "INSERT INTO flags VALUES (?, 'boolean', ?, '', '', '[]', 'release', NULL, 0, 1, ?, ?)",
            (FLAG, json.dumps({"on": True, "off": False}), AT, AT),
        )
        for version in (1, 2):
            db.execute(
                "INSERT INTO configuration_versions VALUES (?, ?, ?, ?, ?, ?, 'ann', 'update', '')",
                (
                    ENVIRONMENT,
                    FLAG,
                    version,
                    json.dumps(OLD_CONFIGURATION),
                    json.dumps({"on": True, "off": False}),
                    AT,
                ),
            )
        db.execute("INSERT INTO configurations VALUES (?, ?, 2)", (ENVIRONMENT, FLAG))
        document = json.dumps({"started_at": 1_795_000_000.0, "version": 1})
        for life, ended, outcome in ((1, AT, "policy"), (2, None, None)):
            db.execute(
                "INSERT INTO guard_lives VALUES (?, ?, ?, ?, ?, ?)",
                (life, ENVIRONMENT, FLAG, document, ended, outcome),
            )
        db.execute("INSERT INTO guard_states VALUES (2, 0, ?)", (json.dumps(OLD_STATE),))
        event = {"t": 1_795_000_001.0, "announced": None, "cells": [], "version": 2}
        db.execute(
            "INSERT INTO guard_events VALUES (1, 2, ?, 0, ?)", (event["t"], json.dumps(event))
        )
    return path


def test_the_server_starts_and_every_step_is_recorded(old_database: Path) -> None:
    World(old_database).close()
    with closing(sqlite3.connect(old_database)) as db:
        steps = [row[0] for row in db.execute("SELECT name FROM _sqlite_migrations ORDER BY id")]
    assert steps == list(STEPS)


def test_policies_say_everything_in_every_version_and_keep_what_they_said(
    old_database: Path,
) -> None:
    with closing(World(old_database)) as world, world.storage.read() as reader:
        for version in (1, 2):
            row = reader.configuration_version(ENVIRONMENT, FLAG, version)
            assert row is not None
            assert row.configuration.guard == complete_policy(OLD_POLICY)


def test_nothing_else_of_a_configuration_is_touched(old_database: Path) -> None:
    with closing(World(old_database)) as world:
        now = rewrite(world)
    assert {**now, "guard": OLD_POLICY} == {**OLD_CONFIGURATION, "guard": OLD_POLICY}


def test_the_old_life_ends_as_upgraded_and_the_ended_one_keeps_its_outcome(
    old_database: Path,
) -> None:
    World(old_database).close()
    with closing(sqlite3.connect(old_database)) as db:
        lives = db.execute("SELECT id, outcome, ended_at FROM guard_lives ORDER BY id").fetchall()
        states = db.execute("SELECT count(*) FROM guard_states").fetchone()
    assert [(life, outcome) for life, outcome, _ in lives] == [(1, "policy"), (2, "upgrade")]
    assert lives[0][2] == AT
    assert lives[1][2] is not None
    assert states == (0,)


def test_the_flag_is_guarded_anew_and_killed_when_it_hurts(old_database: Path) -> None:
    with closing(World(old_database)) as world:
        world.report(1, [cell("on", 2), cell("off", 2)])
        running = world.guarding.running_evidence(ENVIRONMENT, FLAG)
        assert running is not None
        assert running["life"] == 3
        assert running["policy"]["alpha"] == 0.002
        for sequence in range(2, 40):
            on = cell("on", 2, exposures=5, failing={BAD: [sequence]})
            world.report(sequence, [on, cell("off", 2, exposures=15)])
        assert world.is_killed()


def test_what_was_counted_tells_which_versions_ran_and_what_they_brought(
    old_database: Path,
) -> None:
    rows = [
        ("later", 30, "shop", "v2", 5),
        ("both", 20, "shop", "v2", 5),
        ("both", 21, "shop", "v1", 5),
        ("first", 10, "shop", "v1", 5),
        ("first", 40, "till", "t1", 5),
        ("first", 11, "(other)", "(other)", 5),
        ("first", 11, "", "", 5),
        ("first", 1, "shop", "v0", 0),
    ]
    with closing(sqlite3.connect(old_database)) as db:
        db.executemany(
            "INSERT INTO counts VALUES (?, ?, ?, 'default', 'on', 1, ?, ?, ?, 0, '{}')",
            [(ENVIRONMENT, *row) for row in rows],
        )
        db.commit()
    with closing(World(old_database)) as world, world.storage.read() as reader:
        deployments = reader.deployments(9)
        served = reader.first_served(ENVIRONMENT)
    assert [(each.service, each.version) for each in deployments] == [
        ("till", "t1"),
        ("shop", "v2"),
        ("shop", "v1"),
    ]
    assert deployments[1].first_seen_at == datetime(1970, 1, 1, 0, 20, tzinfo=UTC)
    assert all(re.fullmatch("dp-[0-9a-f]{16}", each.id) for each in deployments)
    assert [(row.service, row.flag, row.version) for row in served] == [
        ("shop", "both", "v1"),
        ("shop", "first", "v1"),
        ("shop", "later", "v2"),
        ("till", "first", "t1"),
    ]


def test_a_second_start_changes_nothing_more(old_database: Path) -> None:
    World(old_database).close()
    with closing(sqlite3.connect(old_database)) as db:
        once = list(db.iterdump())
    World(old_database).close()
    with closing(sqlite3.connect(old_database)) as db:
        assert list(db.iterdump()) == once
