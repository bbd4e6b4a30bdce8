"""pocket-clip as other tools quantize it, beside ours: one policy, one reference, verdicts by `compress gate`.

    python benchmarks/peers.py --nncf runs/nncf/bin/python    # a Python that has nncf; rewrites docs/peers.md
    python benchmarks/peers.py --only "int8_clip"             # one candidate; the table shows what was judged so far

nncf lives in an environment of its own (`python -m venv runs/nncf; runs/nncf/bin/pip install nncf onnx onnxruntime`).
All tools start from the same float export and, where they calibrate, from the same 256 rendered scenes.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from compress.core.progress import Silent
from compress.data import runtime
from compress.pipeline import provenance
from compress.pipeline.calibration import Calibration
from compress.pipeline.evidence import environment
from compress.recipe import statement

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "peers.md"
BEGIN, END = "<!-- table: begin, written by benchmarks/peers.py -->", "<!-- table: end -->"
SCENES: Final = "data:\n  calibration: {{source: scenes, split: calibration, samples: {count}}}\n"
Feeds = Sequence[Mapping[str, Any]]

NNCF = """
import json, sys
import nncf, numpy as np, onnx
source, target, feeds = sys.argv[1:]
held = np.load(feeds)
items = [{name.split("/", 1)[1]: held[name] for name in held.files if name.startswith(f"{at}/")}
         for at in range(int(held["count"]))]
made = nncf.quantize(onnx.load(source), nncf.Dataset(items), subset_size=len(items),
                     model_type=nncf.ModelType.TRANSFORMER)
onnx.save(made, target)
print(json.dumps({"nncf": nncf.__version__}))
"""


@dataclass
class Work:
    """Where candidates and their reports lie, the float export they start from, and the Python that has nncf."""

    folder: Path
    nncf: Path | None = None
    policy: str = "clip_compare"
    scenes: int = 256
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """The output root of every command."""
        return self.folder / "artifacts"

    def reference(self) -> Path:
        """The float export of pocket-clip; made where it is not there."""
        from compress.pipeline.options import Options
        from compress.pipeline.runnable import runnable

        return runnable("pocket-clip", Options(output=self.output))

    def feeds(self, kind: str) -> Iterator[Mapping[str, Any]]:
        """The calibration scenes as single inputs of a tower."""
        (self.folder / "scenes.yaml").write_text(SCENES.format(count=self.scenes))
        asked = statement.read(str(self.folder / "scenes.yaml"))["calibration"]
        batches = Calibration(provenance.items(asked, (), Silent()), self.reference()).feeds()(kind)
        for batch in batches:
            length = len(next(iter(batch.values())))
            yield from ({name: rows[at : at + 1] for name, rows in batch.items()} for at in range(length))


def dynamic(work: Work, folder: Path) -> str:
    """`quantize_dynamic` with its defaults. Returns the statement about its calibration."""
    from onnxruntime.quantization import quantize_dynamic

    for path in towers(work).values():
        quantize_dynamic(path, folder / path.name)
    return "none"


def static(work: Work, folder: Path, **options: bool) -> str:
    """`quantize_static` with its defaults (QDQ, both types int8) and `options`."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, feeds: Iterator[Mapping[str, Any]]) -> None:
            self.feeds = feeds

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self.feeds, None)

    for kind, path in towers(work).items():
        quantize_static(path, folder / path.name, Reader(work.feeds(kind)), **options)
    return str(work.folder / "scenes.yaml")


def nncf(work: Work, folder: Path) -> str:
    """`nncf.quantize` of the ONNX model, for a transformer, on every scene. Raises where there is no nncf."""
    if work.nncf is None:
        raise FileNotFoundError("--nncf names no Python that has nncf")
    for kind, path in towers(work).items():
        feeds = list(work.feeds(kind))
        named = {f"{at}/{name}": rows for at, feed in enumerate(feeds) for name, rows in feed.items()}
        np.savez(folder / "feeds.npz", count=len(feeds), **named)
        words = [str(work.nncf), "-c", NNCF, str(path), str(folder / path.name), str(folder / "feeds.npz")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-1500:])
        work.versions |= json.loads(done.stdout.splitlines()[-1])
    (folder / "feeds.npz").unlink()
    return str(work.folder / "scenes.yaml")


def ours(recipe: str, work: Work, folder: Path) -> str:
    """A recipe of this package, ungated here: what judges it is the same command that judges the others."""
    gateless = ("--set", "policy=none", "--set", "reason=judged beside other tools")
    compress(work, "quantize", "--recipe", recipe, *gateless, "--quiet", codes=(4,))
    folder.rmdir()
    shutil.move(work.output / "ungated" / recipe, folder)
    return ""


def towers(work: Work) -> dict[str, Path]:
    """The float ONNX files by tower."""
    folder = work.reference()
    held = runtime.read(folder).towers
    return {kind: folder / getattr(held, kind).file for kind in ("vision", "text")}


CANDIDATES: Final[Mapping[str, Callable[[Work, Path], str]]] = {
    "onnxruntime quantize_dynamic": dynamic,
    "onnxruntime quantize_static": static,
    "onnxruntime quantize_static, per channel": partial(static, per_channel=True),
    "nncf": nncf,
    "int8_clip": partial(ours, "int8_clip"),
    "int4_clip": partial(ours, "int4_clip"),
}


def compress(work: Work, *words: str, codes: Sequence[int]) -> str:
    """What a command of this package prints. Raises where it ends with another code."""
    line = [sys.executable, "-m", "compress", *words, "--output", str(work.output)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode not in codes:
        raise RuntimeError(f"{' '.join(words)} ended {done.returncode}\n{done.stderr[-1500:]}")
    return done.stdout


def judged(name: str, work: Work) -> dict[str, Any]:
    """The gate report of a candidate, which is made anew. What its tool could not do is told as `error`."""
    folder = work.folder / "candidates" / name.replace(" ", "_").replace(",", "")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        stated = CANDIDATES[name](work, folder)
    except Exception as error:  # a tool that cannot take this model is a row of the table
        return {"error": f"{type(error).__name__}: {error}"}
    words = ["gate", str(folder), "--reference", "pocket-clip", "--policy", work.policy, "--json", "--quiet"]
    report: dict[str, Any] = json.loads(
        compress(work, *words, *(["--calibration", stated] if stated else []), codes=(0, 3, 4))
    )
    return {**report, "versions": work.versions}


HEAD: Final = ("Made by", "Verdict", "Exit", "Worst reading slice: drop (bound)", "Zero-shot: drop (bound)",
               "p1 cosine", "Batch cosine", "Size", "Latency", "Blocked by")  # fmt: skip


def row(name: str, report: Mapping[str, Any]) -> tuple[str, ...]:
    """A line of the table: what `compress gate` said of one candidate."""
    if "error" in report:
        return (name, "not made", *["–"] * (len(HEAD) - 3), report["error"].splitlines()[-1][:120])
    found = report["findings"]
    slices = [each for each in found if each["metric"] == "reading.accuracy" and "=" in (each["slice"] or "")]
    worst = max((each for each in slices if each["bound"] is not None), key=lambda each: each["bound"], default=None)
    zero_shot = next((each for each in found if each["metric"] == "zero_shot.accuracy"), None)
    blocking = dict.fromkeys(each["metric"] for each in found if each["status"] != "passed")
    numbers = (_value(found, metric) for metric in
               ("parity.p1_cosine", "parity.batch_cosine", "size.ratio", "latency.ratio"))  # fmt: skip
    place = f"{worst['slice']}: " if worst else ""
    return (name, report["status"], str(report["exit_code"]), place + _drop(worst), _drop(zero_shot), *numbers,
            ", ".join(blocking) or "–")  # fmt: skip


def _drop(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None or found["bound"] is None:
        return "not measured"
    return f"{100 * found['value']:.2f} ({100 * found['bound']:.2f}) pt"


def _value(found: Sequence[Mapping[str, Any]], metric: str) -> str:
    value = next((each["value"] for each in found if each["metric"] == metric), None)
    return "not measured" if value is None else f"{value:.4f}" if "cosine" in metric else f"{value:.2f}"


def table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """All candidates that were judged, in Markdown."""
    lines = [HEAD, tuple("---" for _ in HEAD), *(row(name, reports[name]) for name in CANDIDATES if name in reports)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def described(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """The machine and the versions, so that the numbers can be placed."""
    told = environment()
    have = {name: told["packages"][name] for name in ("compress", "onnxruntime", "onnx")}
    for report in reports.values():
        have |= report.get("versions", {})
    packages = ", ".join(f"{name} {version}" for name, version in have.items())
    return f"{told['cpu']}, {told['platform']}, Python {told['python']}, {packages}."


def write(document: Path, text: str) -> None:
    """Put the text between the markers of a document."""
    old = document.read_text("utf-8") if document.is_file() else f"# Beside other tools\n\n{BEGIN}\n{END}\n"
    before, rest = old.split(BEGIN)
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}", "utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Judge, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--only", choices=CANDIDATES, action="append", help="judge this one again")
    parser.add_argument("--nncf", type=Path, help="the Python of an environment that has nncf")
    parser.add_argument("--policy", default="clip_compare", help="what must hold")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "peers", help="where candidates are kept")
    parser.add_argument("--output", type=Path, default=DOCUMENT, help="document to write")
    given = parser.parse_args(argv)
    logging.getLogger().setLevel(logging.ERROR)
    work = Work(given.work.resolve(), given.nncf and given.nncf.absolute(), given.policy)
    reports = work.folder / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    for at, name in enumerate(CANDIDATES):
        if given.only is None or name in given.only:
            (reports / f"{at}.json").write_text(json.dumps(judged(name, work), indent=1))
    kept = {name: json.loads((reports / f"{at}.json").read_text())
            for at, name in enumerate(CANDIDATES) if (reports / f"{at}.json").is_file()}  # fmt: skip
    print(table(kept), flush=True)
    write(given.output, f"{described(kept)}\n\n{table(kept)}")


if __name__ == "__main__":
    main()
