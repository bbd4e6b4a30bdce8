"""Files that other tools make of pocket-clip, made and judged as in docs/peers.md, on a few items."""

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "peers.py"
SPEC = importlib.util.spec_from_file_location("peers", FILE)
peers = sys.modules["peers"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(peers)

POLICY = """
version: 1
name: few
tasks:
  parity: {split: development, items: 40}
gates:
  - {metric: parity.p1_cosine, rule: at_least, value: 0.9, because: the machinery is tested here}
  - {metric: parity.batch_cosine, rule: at_least, value: 0.999, because: embeddings must not depend on neighbours}
  - {metric: size.ratio, rule: at_most, value: 0.3, because: the same}
"""
NNCF = FILE.parent.parent / "runs" / "nncf" / "bin" / "python"

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    (folder / "few.yaml").write_text(POLICY)
    return peers.Work(folder, NNCF, str(folder / "few.yaml"), scenes=8)


def test_dynamic_quantization_is_judged_without_data_and_blocked_for_its_batches(work):
    report = peers.judged("onnxruntime quantize_dynamic", work)
    found = {each["metric"]: each["status"] for each in report["findings"]}
    assert (report["status"], report["calibration"]["data"]) == ("failed", {})
    assert found == {"parity.p1_cosine": "passed", "parity.batch_cosine": "failed", "size.ratio": "passed"}
    assert report["towers"]["vision"]["kernels"]["DynamicQuantizeMatMul"] > 0
    assert peers.row("dynamic", report)[1:3] == ("failed", "3")


def test_static_quantization_is_judged_with_its_scenes_stated(work):
    report = peers.judged("onnxruntime quantize_static, per channel", work)
    assert report["calibration"]["data"]["calibration"]["split"] == "calibration"
    found = {each["metric"]: each for each in report["findings"]}
    assert found["parity.batch_cosine"]["status"] == "passed"
    assert report["exit_code"] in (0, 3)


def test_nncf_is_judged(work):
    if not NNCF.is_file():
        pytest.skip("nncf has an environment of its own, which is not there: runs/nncf (see benchmarks/peers.py)")
    report = peers.judged("nncf", work)
    assert report["exit_code"] in (0, 3)
    assert set(report["versions"]) == {"nncf"}


def test_what_a_tool_cannot_do_is_a_row(tmp_path):
    made = peers.judged("nncf", peers.Work(tmp_path))
    assert peers.row("nncf", made)[1] == "not made"
    assert "no Python that has nncf" in peers.table({"nncf": made})
