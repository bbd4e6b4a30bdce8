"""The child that opens mutated files, one after the other, and says before and after each which one it is.

    python fuzz_worker.py KIND SEED FIRST LAST

Every file follows from (kind, seed, number) alone. It is opened as `gate`, `verify` or `recipe check` would open it;
the line that tells its outcome begins with "bug" where something came out that must not.
"""

import contextlib
import importlib
import json
import os
import resource
import shutil
import sys
from pathlib import Path

import numpy as np

from compress.core.errors import CompressError

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
mutations = importlib.import_module("mutations")

GOLDEN = HERE.parent / "golden" / "v1"
MEMORY = 12 << 30
DOCUMENTS = ("manifest", "gate_report", "attestations", "runtime", "policy", "recipe")


def main():
    """Work through the numbers in the current folder, which is scratch."""
    kind, seed, first, last = sys.argv[1], *map(int, sys.argv[2:])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 26, 1 << 26))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a library complains of
    opened = Models(Path.cwd()) if kind == "onnx" else Documents(Path.cwd(), kind)
    for number in range(first, last):
        print(json.dumps({"started": number}), file=out, flush=True)
        print(
            json.dumps({"done": number, "outcome": opened(np.random.default_rng([seed, number]))}), file=out, flush=True
        )


class Models:
    """Mutated ONNX files: described as `gate` does, opened as the encoding child does, judged by a policy."""

    def __init__(self, place):
        import onnx
        import tiny_towers
        from test_onnx_files import small, with_external

        from compress.core.names import bundled
        from compress.gates.policy import load_policy

        self.place = place
        (place / "external").mkdir()
        path, content = with_external(place / "external", "w.bin")
        (place / "w.bin").write_bytes(content)
        self.bases = [small(), quantized(small()), tiny_towers.text(), onnx.load(path, load_external_data=False)]
        self.raws = [each.SerializeToString() for each in self.bases]
        self.good = [self.run(raw) for raw in self.raws]
        if not all(isinstance(each, np.ndarray) for each in self.good):
            raise RuntimeError(f"the files do not run before they are changed: {self.good}")
        (place / "policy.yaml").write_text(NEAR)
        self.policy = load_policy(place / "policy.yaml")
        assert bundled("evals").is_dir()

    def __call__(self, rng):
        at = int(rng.choice(len(self.raws), p=(0.5, 0.3, 0.1, 0.1)))
        other = self.raws[int(rng.integers(len(self.raws)))]
        raw = mutations.changed(self.raws[at], other, rng, mutations.fields)
        if raw == self.raws[at]:
            return "unchanged"
        made = self.run(raw)
        return made if isinstance(made, str) else self.judged(made, self.good[at])

    def run(self, raw):
        """What the model gives for a fixed input, or why it gives nothing."""
        from compress.data.runtime import Session, TowerFile
        from compress.data.session import Tower
        from compress.targets.graph import contents

        path = self.place / "model.onnx"
        path.write_bytes(raw)
        try:
            told = contents._guarded(path)
            file = TowerFile(file=path.name, input=told["inputs"][0], output=told["outputs"][0])
            tower = Tower(self.place, file, Session(intra_op_num_threads=1))
        except (CompressError, MemoryError) as error:
            return f"refused: {type(error).__name__}"
        except IndexError:
            return "refused: no input or no output"
        except Exception as error:  # whatever else comes out is no answer to a user
            return f"bug: {type(error).__name__}: {error}"
        try:
            return tower.encode(tower.cast({file.input: feed(tower, file)}))
        except Exception as error:  # as the encoding child: told, and blocks
            return f"does not run: {type(error).__name__}"

    def judged(self, made, good):
        """The verdict of a policy that asks for the same embeddings, held against the arithmetic."""
        from compress.evals.ranking import cosines, unit
        from compress.gates.decision import decide
        from compress.gates.outcomes import Outcomes, Unmeasured

        if made.shape != good.shape:
            found = Unmeasured("another shape")
        else:
            near = cosines(unit(made), unit(good)).astype(np.float64)
            found = Outcomes(tuple(map(str, range(len(near)))), np.ones(len(near)), near, binary=False)
        status = decide(self.policy, {"parity.cosine": found}, "0" * 64).status
        if status != "passed":
            return f"opened: {status}"
        lengths = np.linalg.norm(made, axis=-1) * np.linalg.norm(good, axis=-1)
        same = (
            np.isfinite(made).all() and ((made * good).sum(-1) >= 0.999 * lengths - 1e-6).all() and (lengths > 0).all()
        )
        return "opened: computes the same" if same else "bug: passed with other embeddings"


NEAR = """
version: 1
name: near
tasks: {parity: {split: release, items: 2}}
gates: [{metric: parity.cosine, rule: parity, minimum: 0.999, p1: 0.999, because: it has to be the same model}]
"""


def quantized(model):
    """The same model with a weight in 4-bit blocks and a product in 8 bits, as quantizers write them."""
    from onnx import TensorProto, helper, numpy_helper

    made = type(model)()
    made.CopyFrom(model)
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    held = {
        "q": np.full((2, 1, 8), 0x97, np.uint8), "s": np.full(2, 0.1, np.float32), "sx": np.array(0.02, np.float32),
        "zx": np.array(128, np.uint8), "w8": np.full((2, 2), 3, np.int8), "sw": np.array(0.5, np.float32),
        "zw": np.array(0, np.int8),
    }  # fmt: skip
    made.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in held.items())
    last = made.graph.node[-1]
    last.output[0] = "f"
    made.graph.node.extend(
        [
            helper.make_node(
                "MatMulNBits", ["f", "q", "s"], ["g"], domain="com.microsoft", K=2, N=2, bits=4, block_size=16
            ),
            helper.make_node("QuantizeLinear", ["g", "sx", "zx"], ["g8"]),
            helper.make_node("DequantizeLinear", ["g8", "sx", "zx"], ["gd"]),
            helper.make_node("DequantizeLinear", ["w8", "sw", "zw"], ["wd"]),
            helper.make_node("MatMul", ["gd", "wd"], ["h"]),
            helper.make_node("Add", ["h", "f"], ["y"]),
        ]
    )
    assert TensorProto.UINT8
    return made


def feed(tower, file):
    """A fixed input of the shape and type that the graph declares."""
    rng = np.random.default_rng(0)
    wanted = tower._inputs[file.input]
    shape = [size if isinstance(size, int) and 0 < size < 100 else 2 for size in wanted.shape]
    whole = "int" in wanted.type
    return rng.integers(0, 3, shape) if whole else rng.normal(size=shape).astype(np.float32)


class Documents:
    """Mutated documents: of a signed artifact, whose manifest is made to fit again; recipes and policies as files."""

    def __init__(self, place, kind):
        from compress.artifact import keys, layout
        from compress.core.names import bundled

        self.folder, self.kind, self.key = place / "golden", kind, keys.read_public(GOLDEN / "key.pub")
        shutil.copytree(GOLDEN / "golden", self.folder)
        self.paths = {
            "manifest": layout.MANIFEST, "gate_report": layout.GATE_REPORT, "attestations": layout.ATTESTATIONS,
            "runtime": layout.RUNTIME, "policy": layout.POLICY, "recipe": layout.RECIPE,
        }  # fmt: skip
        self.raws = {name: (self.folder / path).read_bytes() for name, path in self.paths.items()}
        self.files = {
            "recipe": [
                self.raws["recipe"],
                *(path.read_bytes() for path in sorted(bundled("recipes").rglob("*.yaml"))),
            ],
            "policy": [
                self.raws["policy"],
                *(path.read_bytes() for path in sorted(bundled("evals", "policies").glob("*"))),
            ],
        }
        self.manifest = self.raws["manifest"]

    def __call__(self, rng):
        names = list(self.raws)
        raw, other = self.raws[self.kind], self.raws[names[int(rng.integers(len(names)))]]
        made = mutations.changed(raw, other, rng, mutations.words)
        if made == raw:
            return "unchanged"
        outcome = self.verified(made, raw)
        if self.kind in self.files and not outcome.startswith("bug"):
            files = self.files[self.kind]
            outcome = self.read(mutations.changed(files[int(rng.integers(len(files)))], other, rng, mutations.words))
        return outcome

    def verified(self, made, raw):
        """What `verify --public-key` says of the artifact with this document in it, as an attacker would place it."""
        from compress.artifact import attestation, layout, manifest, verify
        from compress.report import document

        path = self.folder / self.paths[self.kind]
        (self.folder / layout.MANIFEST).write_bytes(self.manifest)
        path.write_bytes(made)
        try:
            if self.kind != "manifest":
                (self.folder / layout.MANIFEST).write_bytes(manifest.scan(self.folder, "golden").to_json())
            report = verify.verify(self.folder)
            attestation.check(self.folder, report, self.key).require("artifact")
            outcome = "verified: says the same" if equal(made, raw) else "bug: a changed document verifies"
        except CompressError as error:
            outcome = f"refused: {type(error).__name__}"
        except Exception as error:  # whatever else comes out is no answer to a user
            outcome = f"bug: {type(error).__name__}: {error}"
        if self.kind == "gate_report":
            with contextlib.suppress(CompressError):
                shown = document.read(self.folder)
                if shown.status == "passed" and {each.status for each in shown.findings} != {"passed"}:
                    outcome = "bug: shown as passed"
        path.write_bytes(raw)
        return outcome

    def read(self, made):
        """What a recipe or a policy with these bytes is."""
        from compress.artifact import layout
        from compress.gates.policy import load_policy
        from compress.recipe.load import dump, load
        from compress.steps import spec_of

        path = self.folder.parent / "document.yaml"
        path.write_bytes(made)
        try:
            if self.kind == "policy":
                policy = load_policy(path)
                numbers = [
                    value for gate in policy.gates for value in gate.model_dump().values() if isinstance(value, float)
                ]
                fine = policy.gates and layout.is_name(policy.name) and np.isfinite(numbers).all()
            else:
                recipe = load(path, spec_of)
                dump(recipe)
                fine = layout.is_name(recipe.name) and bool(recipe.gated or recipe.reason)
        except CompressError as error:
            return f"refused: {type(error).__name__}"
        except Exception as error:
            return f"bug: {type(error).__name__}: {error}"
        return "read" if fine else "bug: read, and means nothing"


def equal(made, raw):
    """Whether two JSON texts, or lines of them, say the same; the files of a manifest may come in any order."""
    try:
        one, two = json.loads(made), json.loads(raw)
        for each in (one, two):
            if isinstance(each, dict) and isinstance(each.get("files"), list):
                each["files"] = sorted(each["files"], key=str)
        return one == two
    except ValueError:
        pass
    try:
        return list(map(json.loads, made.splitlines())) == list(map(json.loads, raw.splitlines()))
    except ValueError:
        return False


if __name__ == "__main__":
    main()
