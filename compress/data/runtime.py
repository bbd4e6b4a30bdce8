"""The runtime file of an artifact: which ONNX file is which tower, how inputs are made, how the session is opened."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import Field, PositiveInt, StringConstraints, ValidationError, field_validator, model_validator

from compress.core.errors import IntegrityError
from compress.recipe.document import Strict

FILE: Final = "compress/runtime.json"
"""Where it stands in an artifact."""

COMPUTED: Final = "tokens_computed"
"""The weight of a graph that says how many tokens, of the first on, are computed behind the last attention.

A tower that pools its first token needs one there. Who reads patch tokens (`TowerFile.tokens`) gives it a number that
is as large as there are tokens, and gets them all; the embeddings stay the same.
"""

CUT: Final = "up_to_the_end"
"""Ends the names of inputs of a text tower that are cut behind the last token that is pooled."""

Provider = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]+ExecutionProvider$")]
Proof = Literal["linted-only"]
"""What measuring an artifact on another runtime than its own leaves open: its file was checked by rules, not run."""

Channels = tuple[float, float, float]


class TowerFile(Strict):
    """One tower: its ONNX file relative to the artifact, and the names of what goes in and comes out.

    `mask` names the input that is 1 on real tokens, `eos` the input that takes the position of the last real token;
    None where the graph has no such input. `tokens` names the tensor inside the graph that holds a vector for each
    patch, which is what a language model behind the tower reads; None where nobody knows it.
    """

    file: str
    input: str
    output: str
    mask: str | None = None
    eos: str | None = None
    tokens: str | None = None

    @field_validator("file")
    @classmethod
    def _inside(cls, file: str) -> str:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\\" in file or "\0" in file or str(path) != file:
            raise ValueError(f"{file!r} is not a plain path inside the artifact")
        return file


class Towers(Strict):
    """The towers of an encoder: both, or the only one it has."""

    vision: TowerFile | None = None
    text: TowerFile | None = None

    @model_validator(mode="after")
    def _some(self) -> Towers:
        if self.vision is None and self.text is None:
            raise ValueError("there is no tower")
        return self


class Session(Strict):
    """How ONNX Runtime opens the towers. 0 threads means as many as there are cores."""

    intra_op_num_threads: int = Field(0, ge=0, le=1024)
    graph_optimization_level: Literal["disable", "basic", "extended", "all"] = "all"
    providers: tuple[Provider, ...] = Field(("CPUExecutionProvider",), min_length=1)


class Transformers(Strict):
    """Inputs made by the Hugging Face processor files beside the towers.

    Texts are padded to the tokenizer's `model_max_length`, which every family understands, or to the longest of
    a batch, which is faster where the tower ignores padding.
    """

    kind: Literal["transformers"] = "transformers"
    padding: Literal["max_length", "longest"] = "max_length"


class PlainImage(Strict):
    """RGB resized to `size` (height, width): padded, cropped or stretched to fit; then (x / divide - mean) / std.

    `channels` is the order in which the tower takes them; `mean` and `std` are in that order.
    """

    size: tuple[PositiveInt, PositiveInt]
    fit: Literal["pad", "crop", "stretch"] = "pad"
    divide: float = Field(255.0, gt=0)
    mean: Channels | None = None
    std: Channels | None = None
    pad_value: int = Field(0, ge=0, le=255)
    channels: Literal["rgb", "bgr"] = "rgb"


class PlainText(Strict):
    """UTF-8 bytes between a start and an end byte, cut to `length` and padded to it."""

    tokenizer: Literal["bytes"]
    length: PositiveInt
    start: int = Field(2, ge=0)
    end: int = Field(3, ge=0)
    pad: int = Field(0, ge=0)


class TokenizerText(Strict):
    """Tokens of the `tokenizer.json` in the artifact, cut to `length` and padded to it."""

    tokenizer: Literal["tokenizer.json"]
    length: PositiveInt
    pad: int = Field(0, ge=0)


class Plain(Strict):
    """Inputs made by a few numbers, for models that come without processor files; None where there is no such tower."""

    kind: Literal["plain"] = "plain"
    image: PlainImage | None = None
    text: Annotated[PlainText | TokenizerText, Field(discriminator="tokenizer")] | None = None


class Runtime(Strict):
    """Everything needed to encode with the towers of an artifact."""

    version: Literal[1] = 1
    target: str
    proof: Proof | None = None
    towers: Towers
    session: Session = Session()
    preprocess: Annotated[Transformers | Plain, Field(discriminator="kind")]
    logit_scale: float = Field(gt=0, allow_inf_nan=False)
    normalized: bool = True

    @model_validator(mode="after")
    def _inputs_for_each(self) -> Runtime:
        made = self.preprocess
        if isinstance(made, Plain):
            for tower, how in ((self.towers.vision, made.image), (self.towers.text, made.text)):
                if tower is not None and how is None:
                    raise ValueError(f"preprocess does not say how the inputs of {tower.file} are made")
        return self


def read(folder: Path) -> Runtime:
    """The runtime file of an artifact. Raises IntegrityError where it is missing or says something else."""
    path = folder / FILE
    try:
        return Runtime.model_validate_json(path.read_bytes())
    except OSError as error:
        raise IntegrityError(f"cannot be read: {error.strerror}", str(path), "is this an artifact?") from None
    except ValidationError as error:
        raise IntegrityError(str(error), str(path)) from None


def write(folder: Path, runtime: Runtime) -> None:
    """Write the runtime file of an artifact: the same runtime gives the same bytes."""
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    told = runtime.model_dump(mode="json")
    if told["proof"] is None:
        del told["proof"]
    path.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
