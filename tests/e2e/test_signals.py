"""Ctrl-C and SIGTERM end a run with their own exit codes, and publish nothing."""

import signal
import subprocess
import sys

import pytest

RUN = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
from pathlib import Path
from compress.artifact.staging import Store
from compress.cli.main import main
from compress.pipeline import run

def works_for_long(recipe, file, options):
    with Store(options.output).stage(recipe.name) as staging:
        staging.write("onnx/vision_model.onnx", b"half of it")
        print("at work", flush=True)
        time.sleep(60)

run.run = works_for_long
sys.exit(main(["run", "--recipe", "int8_clip", "--quiet"]))
"""


@pytest.mark.parametrize(
    ("sent", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_a_run(tmp_path, sent, code, said):
    with subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "at work\n"
        process.send_signal(sent)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, f"{said}; nothing was published" in told) == (code, True)
    assert [path.name for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == [".int8_clip.lock"]
