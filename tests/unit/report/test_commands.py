import json
import subprocess
import sys
from pathlib import Path

import pytest
import report_sample

from compress.artifact import manifest
from compress.cli.main import main


def artifact(folder: Path, data) -> Path:
    (folder / "compress").mkdir(parents=True)
    (folder / "compress" / "gate_report.json").write_text(json.dumps(data))
    (folder / "compress" / "manifest.json").write_bytes(manifest.scan(folder, data["name"]).to_json())
    return folder


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    return artifact(tmp_path / "a", report_sample.passed()), artifact(tmp_path / "b", report_sample.blocked())


def test_inspect(two, capsys):
    assert main(["inspect", str(two[1]), "-v"]) == 0
    shown = capsys.readouterr().out
    for expected in ("BLOCKED", "size=6-8", "int4 weights", "1.45 MB", "compress/gate_report.json", "clip_release"):
        assert expected in shown


def test_inspect_json(two, capsys):
    assert main(["inspect", str(two[0]), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["status"], data["files"][0]["path"]) == ("passed", "compress/gate_report.json")
    assert data["findings"][0]["bound"] == 0.01


def test_compare(two, capsys):
    assert main(["compare", *map(str, two)]) == 0
    shown = capsys.readouterr().out
    for expected in ("PASSED", "BLOCKED", "reading.accuracy, size=6-8", "-46.60 pt", "inconclusive"):
        assert expected in shown


def test_compare_json(two, capsys):
    assert main(["compare", *map(str, two), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["a"]["status"], data["b"]["status"], len(data["findings"])) == ("passed", "failed", 2)


def test_report_renders_outside_the_artifact_only(two, tmp_path, capsys):
    page = tmp_path / "out.html"
    assert main(["report", str(two[1]), "-o", str(page)]) == 0
    assert "size=6-8" in page.read_text()
    inside = two[1] / "compress" / "report.html"
    assert main(["report", str(two[1]), "-o", str(inside)]) == 2
    assert not inside.exists()


def test_report_says_where_it_is(two, capsys):
    assert main(["report", str(two[0])]) == 2
    (two[0] / "compress" / "report.html").write_text("<html>")
    assert main(["report", str(two[0])]) == 0
    assert capsys.readouterr().out.strip() == str(two[0] / "compress" / "report.html")


@pytest.mark.parametrize("words", [["inspect"], ["compare", "."], ["report"]])
def test_what_is_no_artifact_ends_with_2_and_a_hint(tmp_path, capsys, words):
    assert main([*words, str(tmp_path)]) == 2
    assert "compress/gate_report.json" in capsys.readouterr().err


def test_a_report_loads_no_machine_learning_library_and_a_terminal_view_no_matplotlib(two):
    code = (
        "import sys; from compress.cli.main import main; main(['inspect', sys.argv[1]]); "
        "assert not {'torch', 'onnx', 'onnxruntime', 'transformers', 'matplotlib'} & sys.modules.keys(); "
        "main(['report', sys.argv[1], '-o', '-']); "
        "assert not {'torch', 'onnx', 'onnxruntime', 'transformers', 'matplotlib.pyplot'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(two[0])], check=True, stdout=subprocess.DEVNULL)


def test_a_report_in_markdown_for_the_summary_of_a_pipeline(two, tmp_path, capsys):
    assert main(["report", str(two[1]), "--format", "markdown"]) == 0
    text = capsys.readouterr().out
    title, sentence, *table = [line for line in text.splitlines() if line]
    assert title.startswith("## ✕ BLOCKED")
    assert "failed" in sentence
    assert all(line.startswith("|") for line in table[:-1])
    assert table[-1].startswith("Artifact `")
    file = tmp_path / "summary.md"
    assert main(["report", str(two[1]), "--format", "markdown", "-o", str(file)]) == 0
    assert file.read_text() == text
