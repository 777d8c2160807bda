"""A flag that turns bad while a fleet is in trouble: it is to be killed, by one decision."""

import json
import threading
from typing import Self

from flagd_server.storage import open_reader
from tests.end_to_end.fleet import Fleet, cell
from tests.waiting import eventually

_SUMMARIES = 20
_DECIDED_WITHIN_S = 30.0


class BadFlag:
    """Reported on from when it is entered until it is left, whichever server takes it."""

    def __init__(self, fleet: Fleet, key: str, environment: str, process: int = 2) -> None:
        self._fleet = fleet
        self._key = key
        self._environment = environment
        self._process = process
        self._acknowledged = 0
        self._failures: list[BaseException] = []
        self._path = f"/api/v1/flags/{key}/environments/{environment}"
        weights = {"on": 25_000, "off": 75_000}
        server = fleet.leader
        server.create_flag(key, environment, default_serve={"split": {"weights": weights}})
        self._version: int = server.call("GET", self._path).json()["version"]
        self._thread = threading.Thread(target=self._report)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def check(self) -> None:
        """Hold what was decided and counted to what was acknowledged.

        Raises:
            AssertionError: there is not one kill with one report, or a summary is lost or doubled.
        """
        assert self._failures == []
        eventually(self._is_counted, within_s=_DECIDED_WITHIN_S, every_s=0.1)
        with open_reader(self._fleet.database) as reader:
            configuration = reader.configuration(self._environment, self._key)
            history = reader.history(self._environment, self._key, 100)
            evidence = reader.list_evidence(self._environment, self._key)
            counted = sum(row.exposures for row in reader.counts(self._environment, self._key, 0))
        assert counted == self._acknowledged
        assert configuration is not None
        kill = configuration.configuration.kill
        assert kill is not None
        assert [row.action for row in history].count("kill") == 1
        assert [json.loads(row.document)["action"] for row in evidence] == ["kill"]
        assert [row.id for row in evidence] == [kill.evidence]

    def _is_counted(self) -> bool:
        with open_reader(self._fleet.database) as reader:
            return not reader.inbox(1)

    def _report(self) -> None:
        try:
            for sequence in range(1, _SUMMARIES + 1):
                first = 1_000 * self._process + 10 * sequence
                failing = list(range(first, first + 4))
                cells = [
                    cell("on", self._version, 10, failing, self._key),
                    cell("off", self._version, 30, flag=self._key),
                ]
                self._fleet.report(self._process, sequence, cells, self._environment)
                self._acknowledged += 40
        except BaseException as error:
            self._failures.append(error)
