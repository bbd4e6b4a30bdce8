"""How the golden artifact of a format version was made: once, when that version was first released, and never again.

Two small random towers, compressed, gated and signed by an ordinary run. The private key is not kept, so nobody can
make another artifact that verifies under this public key. Run from the root of the repository, into a folder that is
not there yet:

    python tests/golden/make.py tests/golden/v1
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.append(str(Path(__file__).parents[1]))
import tiny_towers

from compress.cli.main import main

RECIPE = """\
version: 1
name: golden
model:
  source: onnx
  vision: vision.onnx
  text: text.onnx
  preprocess: {image: {size: [8, 8]}, text: {tokenizer: bytes, length: 8}}
  logit_scale: 10
steps:
  - {use: quantize.int8_rtn}
targets: [onnxruntime-cpu]
policy: policy.yaml
"""
POLICY = """\
version: 1
name: golden
gates:
  - {metric: size.ratio, rule: at_most, value: 0.6, because: "8 bits for 32, and the graph itself"}
  - {metric: census.vision, rule: census, because: the file holds what was planned}
  - {metric: census.text, rule: census, because: the file holds what was planned}
"""


def make(out: Path) -> int:
    """Run the recipe and keep the artifact and the public key; returns the exit code of the run."""
    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        tiny_towers.write(place)
        (place / "recipe.yaml").write_text(RECIPE)
        (place / "policy.yaml").write_text(POLICY)
        main(["keygen", str(place / "key")])
        run = ["run", "--recipe", str(place / "recipe.yaml"), "--output", str(place / "out")]
        code = main([*run, "--sign", str(place / "key")])
        if code == 0:
            out.mkdir(parents=True)
            shutil.copytree(place / "out" / "released" / "golden", out / "golden")
            shutil.copyfile(place / "key.pub", out / "key.pub")
    return code


if __name__ == "__main__":
    sys.exit(make(Path(sys.argv[1])))
