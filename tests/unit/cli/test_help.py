"""Asking a command what it does loads nothing heavy, and every command has an answer."""

import subprocess
import sys

from compress.cli.main import main
from compress.core import names

COMMANDS = [name.replace("_", "-") for name in names.available("compress.cli.commands")]


def test_help_of_every_command_loads_no_ml_library():
    program = (
        "import sys\n"
        "from compress.cli.main import main\n"
        "for name in sys.argv[1:]:\n"
        "    assert main([name, '--help']) == 0, name\n"
        "assert not {'torch', 'transformers', 'onnx', 'onnxruntime', 'scipy', 'datasets'} & sys.modules.keys()\n"
    )
    ran = subprocess.run([sys.executable, "-c", program, *COMMANDS], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("Usage: compress ") == len(COMMANDS)


def test_a_command_that_is_not_there_is_told_with_the_nearest(capsys):
    assert main(["dokter"]) == 2
    assert "doctor" in capsys.readouterr().err
