"""What must answer at once loads no machine learning library."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "transformers",
    "onnxruntime",
    "datasets",
    "scipy",
    "matplotlib",
    "sklearn",
    "optimum",
    "accelerate",
    "pymilvus",
}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["quantize", "--help"],
        ["recipe", "list"],
        ["recipe", "check", "int4_clip", "int8_clip", "int4_clip_naive"],
        ["recipe", "schema"],
        ["policy", "list"],
        ["policy", "check", "clip_release"],
        ["policy", "diff", "clip_release", "fashion_release"],
        ["methods"],
        ["verify", "."],
        ["inspect", "."],
    ],
    ids=" ".join,
)
def test_quick_commands_load_no_ml_library(arguments: list[str]) -> None:
    program = (
        "import json, sys\n"
        "from compress.cli.main import main\n"
        f"main({arguments!r})\n"
        "print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(ran.stdout.splitlines()[-1]))
    assert not loaded & HEAVY


def test_verify_does_not_even_load_numpy() -> None:
    program = "import sys\nfrom compress.cli.main import main\nmain(['verify', '.'])\nassert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
