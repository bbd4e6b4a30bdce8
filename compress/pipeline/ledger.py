"""How many candidates were held against the same data: who tries often enough gets something released by luck.

At 20 attempts, gates that each let one bad model in 20 through let one through more often than not. The ledger does
not decide; the report shows what it counts. It lies in the output root, so it counts what one root has seen.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import filelock

from compress.core.errors import IntegrityError
from compress.gates.policy import Policy
from compress.gates.verdict import Verdict

FILE: Final = "ledger.jsonl"


def record(root: Path, policy: Policy, verdict: Verdict, name: str) -> list[dict[str, Any]]:
    """Add a verdict; for each split the policy reads, how many different candidates it has judged with this one.

    Counted by the policy's name: a change of the policy does not make a split fresh again. The same bytes judged
    again are no new candidate.
    """
    root.mkdir(parents=True, exist_ok=True)
    splits = sorted({task.split for task in policy.tasks.values()})
    with filelock.FileLock(root / f".{FILE}.lock"):
        entries = _read(root / FILE)
        fresh = {
            "policy": policy.name, "policy_digest": policy.digest, "splits": splits, "name": name,
            "candidate": verdict.digest, "status": verdict.status,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }  # fmt: skip
        with (root / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(fresh, sort_keys=True) + "\n")
    same = [entry for entry in [*entries, fresh] if entry["policy"] == policy.name]
    return [
        {"split": split, "candidates": len({entry["candidate"] for entry in same if split in entry["splits"]})}
        for split in splits
    ]


def _read(file: Path) -> list[dict[str, Any]]:
    """Every entry so far. A last line that was cut off when its writer was killed is ended and left as it is."""
    if not file.is_file():
        return []
    text = file.read_text("utf-8")
    if text and not text.endswith("\n"):
        with file.open("a", encoding="utf-8") as opened:
            opened.write("\n")
        text = text[: text.rfind("\n") + 1]
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            entry = json.loads(line)
            entries.append({key: entry[key] for key in ("policy", "splits", "candidate")})
        except (ValueError, TypeError, KeyError):
            if line.startswith("{") and not line.endswith("}"):
                continue
            hint = "restore it, or move it away and say so"
            raise IntegrityError(f"line {number} is no entry of a ledger", str(file), hint) from None
    return entries
