"""Candidates are counted per policy and split, and the count cannot be lost by a crash or a changed policy."""

import json

import pytest

from compress.core.errors import IntegrityError
from compress.gates.policy import Policy
from compress.gates.verdict import Verdict
from compress.pipeline import ledger


def policy(name="strict", value=1.0, split="release"):
    gate = {"metric": "size.ratio", "rule": "at_most", "value": value, "because": "small"}
    return Policy.model_validate({"version": 1, "name": name, "tasks": {"reading": {"split": split}}, "gates": [gate]})


def record(root, digest, asked=None):
    asked = asked or policy()
    return ledger.record(root, asked, Verdict(digest, asked.name, asked.digest, ()), "model")


def test_different_candidates_are_counted_and_the_same_bytes_once(tmp_path):
    counts = [record(tmp_path / "out", digest)[0]["candidates"] for digest in ("a", "b", "a", "c")]
    assert counts == [1, 2, 2, 3]
    lines = (tmp_path / "out" / ledger.FILE).read_text().splitlines()
    assert [json.loads(line)["candidate"] for line in lines] == ["a", "b", "a", "c"]


def test_a_changed_policy_goes_on_counting_another_one_starts(tmp_path):
    record(tmp_path, "a")
    assert record(tmp_path, "b", policy(value=2.0)) == [{"split": "release", "candidates": 2}]
    assert record(tmp_path, "b", policy("other")) == [{"split": "release", "candidates": 1}]
    assert record(tmp_path, "c", policy(split="development")) == [{"split": "development", "candidates": 1}]


def test_a_line_that_was_cut_off_does_not_stop_the_count(tmp_path):
    record(tmp_path, "a")
    with (tmp_path / ledger.FILE).open("a") as file:
        file.write('{"policy": "str')
    assert record(tmp_path, "b")[0]["candidates"] == 2
    assert record(tmp_path, "c")[0]["candidates"] == 3


def test_a_ledger_that_is_something_else_is_refused(tmp_path):
    (tmp_path / ledger.FILE).write_text("nothing to see\n")
    with pytest.raises(IntegrityError, match="line 1 is no entry"):
        record(tmp_path, "a")
