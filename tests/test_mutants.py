"""A small campaign of mutants finds nothing; and it would find what there is to find."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from compressor.artifact import Mode
from compressor.artifact.unpacking import unpack_tensor
from compressor.coding import native
from tests.fuzz import campaign
from tests.fuzz.artifacts import SINGLE, artifacts
from tests.fuzz.campaign import Judge, Tally, decode_one, run
from tests.fuzz.edits import EDITS, taken_apart
from tests.fuzz.mutants import SEALED, family, mutant
from tests.fuzz.mutations import MUTATIONS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no limits of memory there")
FIRST = 1 << 60
"""Numbers that no campaign of a small seed has."""
UNPACK = "compressor.artifact.reader.unpack_tensor"
CHECK = "compressor.artifact.reader._check"


@pytest.mark.parametrize(
    ("backend", "count"),
    [
        pytest.param("c", 15_000, marks=pytest.mark.skipif(not native.built(), reason="no C")),
        ("numpy", 2_000),
    ],
)
def test_mutants_come_to_errors_or_to_what_was_written(backend: str, count: int) -> None:
    tally = run(FIRST, count, backend)
    assert tally.findings == []
    assert tally.mutants == count
    assert tally.sealed == count // SEALED
    assert tally.reached > tally.sealed // 2
    assert tally.growth < campaign.SLACK
    assert len(tally.families) > 40


def test_a_mutant_follows_from_its_number() -> None:
    kinds = set()
    for number in range(3 * SINGLE * SEALED):
        first, again = mutant(number), mutant(number)
        assert first == again
        assert first.sealed == (number % SEALED == 0)
        kinds.add(first.kind)
    wanted = {change.__name__ for change in (*MUTATIONS, *EDITS)}
    assert len(kinds & wanted) > len(wanted) - 3


def test_every_mode_is_among_the_files() -> None:
    assert {mode for file in artifacts()[:SINGLE] for mode in file.modes} == set(Mode)


def test_files_taken_apart_are_put_together_as_they_were() -> None:
    plain = [file for file in artifacts() if not file.blob[10] & 1]
    assert len(plain) > SINGLE // 2
    for file in plain:
        parts = taken_apart(file.blob)
        assert parts.sealed() == parts.torn() == file.blob


# What is wrong with the decoders below is so in the child processes, which import these functions.


def turned(number: int, backend: str, tally: Tally) -> None:
    with mock.patch(UNPACK, lambda *given: np.flip(unpack_tensor(*given)).copy()):
        decode_one(number, backend, tally)


def unchecked(number: int, backend: str, tally: Tally) -> None:
    with mock.patch(CHECK):
        decode_one(number, backend, tally)


def strange(number: int, backend: str, tally: Tally) -> None:
    with mock.patch(UNPACK, side_effect=KeyError("w")):
        decode_one(number, backend, tally)


def greedy(number: int, backend: str, tally: Tally) -> None:
    with mock.patch(UNPACK, side_effect=lambda *_: np.ones(2 * campaign.SLACK, np.uint8)):
        decode_one(number, backend, tally)


def fatal(number: int, backend: str, tally: Tally) -> None:
    if number % 100 == 77:
        os.kill(os.getpid(), signal.SIGKILL)
    decode_one(number, backend, tally)


def endless(number: int, backend: str, tally: Tally) -> None:
    if number == FIRST + 7:
        time.sleep(60)
    tally.mutants += 1


def slow(number: int, backend: str, tally: Tally) -> None:
    with mock.patch.object(campaign, "SLOW", 0.0):
        decode_one(number, backend, tally)


@pytest.mark.parametrize(
    ("judge", "what"),
    [
        (turned, "tensor 'w' has wrong weights"),
        (unchecked, "tensor 'w' has wrong weights"),
        (strange, "KeyError: 'w'"),
        (greedy, "there was not enough memory"),
        (slow, "took 0.0 s"),
    ],
)
def test_what_a_decoder_may_not_do_is_found(judge: Judge, what: str) -> None:
    tally = run(FIRST, 400, "numpy", judge=judge)
    assert what in {finding["what"] for finding in tally.findings}
    assert tally.mutants == 400


def test_crashes_have_a_number_and_the_rest_goes_on() -> None:
    tally = run(0, 200, "numpy", judge=fatal)
    assert sorted(finding["number"] for finding in tally.findings) == [77, 177]
    assert {finding["what"] for finding in tally.findings} == {"the process ended with -9"}
    assert tally.mutants == 200
    assert sum(tally.kinds.values()) == 198


def test_what_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "HANG", 2.0)
    tally = run(FIRST, 20, "numpy", judge=endless)
    assert [finding["number"] for finding in tally.findings] == [FIRST + 7]
    assert tally.findings[0]["what"] == "the process hung for 2.0 s"
    assert tally.mutants == 20


def test_a_campaign_is_a_command(tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    arguments = ["--count", "0", "--numpy-count", "60", "--seed", "3", "--workers", "2"]
    command = [sys.executable, "-m", "tests.fuzz.campaign", *arguments, "-o", str(output)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "60 of 60 mutants" in done.stderr
    record: dict[str, Any] = json.loads(output.read_text())
    assert record["numpy"]["mutants"] == 60
    assert record["numpy"]["findings"] == []
    assert record["environment"]["python"]


def test_messages_are_counted_by_what_they_have_in_common() -> None:
    assert family("artifact: tensor 'a b': 3 weights and 0x7f fillers cannot be in 100") == (
        "tensor #: # weights and # fillers cannot be in #"
    )
    assert family('artifact: tensor "it\'s" of shape (1, 2, 3) inflates to nan: UTF-8') == (
        "tensor # of shape # inflates to #: UTF-8"
    )
