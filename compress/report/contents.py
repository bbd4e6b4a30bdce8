"""What is known of a candidate made elsewhere: what its files contain, and what was stated about its making."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from compress.report import wording


@dataclass(frozen=True, slots=True)
class Contents:
    """Prints itself with rich: a line for each tower, and one for what it was calibrated on. Takes a gate report."""

    report: Mapping[str, Any]

    def __rich_console__(self, *_: object) -> Iterator[Text]:
        for line in lines(self.report):
            yield Text(line, style="dim")


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The same as plain sentences."""
    for kind, told in report["towers"].items():
        yield f"{kind} tower: {_tower(told)}"
    if (stated := report["calibration"]) is not None:
        data = ", ".join(f"{name} ({_source(each)})" for name, each in stated["data"].items())
        yield f"calibrated on {data or 'no data'}, as stated by the user"


def _tower(told: Mapping[str, Any]) -> str:
    """`model.onnx; weights 3.4 MB int8, 0.2 MB float; kernels: 52 MatMulInteger, 13 Add, ...`."""
    if "weights" not in told:
        return f"of {told['from']}, unchanged"
    weights = ", ".join(f"{wording.size(size)} {name}" for name, size in _largest(told["weights"], 4))
    if "kernels" not in told:
        return f"{told['from']}; weights {weights}; run by torch"
    kernels = ", ".join(f"{count} {name}" for name, count in _largest(told["kernels"], 6))
    return f"{told['from']}; weights {weights}; most kernels: {kernels}"


def _largest(counts: Mapping[str, int], most: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]


def _source(told: Mapping[str, Any]) -> str:
    return " ".join(str(told[key]) for key in ("source", "split", "samples") if key in told)
