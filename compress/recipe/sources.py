"""Where a recipe takes its model and its data from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from compress.recipe.fields import Name, PositiveInt, PositiveNumber, Seed, Strict, Text
from compress.recipe.scalars import shown
from compress.recipe.training import Feeding

Revision = Annotated[str, Field(min_length=1, max_length=200)]
Channels = tuple[float, float, float]
Place = Literal["bundled", "folder", "hub"]
BUNDLED = ("pocket-clip", "scenes")

_COMMIT = re.compile("[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def place(source: str) -> Place:
    """What a source names. A folder whose path looks like a hub id is written `./owner/name`."""
    if source in BUNDLED:
        return "bundled"
    return "hub" if _HUB_ID.fullmatch(source) else "folder"


class ImageInput(Strict):
    """How an image becomes a tower's input: (x / divide - mean) / std of an RGB image of `size`."""

    size: tuple[PositiveInt, PositiveInt] = Field(description="Height and width in pixels.")
    fit: Literal["pad", "crop", "stretch"] = Field("pad", description="How the aspect ratio is dealt with.")
    divide: PositiveNumber = Field(255.0, description="Pixel values are divided by this first.")
    mean: Channels | None = Field(None, description="Subtracted from each channel.")
    std: tuple[PositiveNumber, PositiveNumber, PositiveNumber] | None = Field(None, description="Divides each channel.")
    pad_value: int = Field(0, ge=0, le=255, description="Pixel value of the padding.")
    channels: Literal["rgb", "bgr"] = Field("rgb", description="Order of the channels, in which mean and std are too.")


class ByteText(Strict):
    """Text as UTF-8 bytes between a start and an end token, padded to a length."""

    tokenizer: Literal["bytes"] = Field(description="Tokens are the bytes of the text.")
    length: PositiveInt = Field(description="Number of tokens.")
    start: int = Field(2, ge=0, description="Token before the text.")
    end: int = Field(3, ge=0, description="Token after the text.")
    pad: int = Field(0, ge=0, description="Token that fills up to the length.")


class TokenizerText(Strict):
    """Text through a tokenizer that is there as a file."""

    tokenizer: Text = Field(description="Path of a tokenizer.json, or of a folder that holds one.")
    length: PositiveInt = Field(description="Number of tokens.")
    pad: int = Field(0, ge=0, description="Token that fills up to the length.")


def _text_input(value: Any) -> str:
    told = value.get("tokenizer") if isinstance(value, Mapping) else getattr(value, "tokenizer", None)
    return "ByteText" if told == "bytes" else "TokenizerText"


TextInput = Annotated[
    Annotated[ByteText, Tag("ByteText")] | Annotated[TokenizerText, Tag("TokenizerText")], Discriminator(_text_input)
]


class Preprocess(Strict):
    """How the inputs of ONNX towers are made."""

    image: ImageInput | None = Field(None, description="Input of the vision tower.")
    text: TextInput | None = Field(None, description="Input of the text tower.")


class TowerInputs(Strict):
    """What a file says about towers that another tool made: an ONNX `model:` of a recipe without the files."""

    source: Literal["onnx"] = Field("onnx", description="The towers are ONNX files.")
    preprocess: Preprocess = Field(description="How their inputs are made.")
    logit_scale: PositiveNumber | None = Field(None, description="Scale of the similarities, where there is one.")
    normalize: bool = Field(True, description="The towers' embeddings are of length 1.")


class NamedModel(Strict):
    """A model that brings its own processor: bundled, a folder, or from the hub."""

    source: Text = Field(description="pocket-clip, a folder, or a hub id such as openai/clip-vit-base-patch32.")
    revision: Revision | None = Field(None, description="Commit (40 hex digits) or tag of a hub id.")
    allow_pickle: bool = Field(False, description="Read pickled weights where there are no safetensors.")
    normalize: bool = Field(True, description="L2-normalise the embeddings inside the exported graph.")
    streaming: bool | None = Field(
        None, description="Leave the weights in their files and work block by block; not given: where memory is short."
    )

    @field_validator("revision")
    @classmethod
    def _of_hub(cls, revision: str | None, info: ValidationInfo) -> str | None:
        return _only_of_hub(revision, info)


class OnnxModel(Strict):
    """One or two towers that are ONNX files already."""

    source: Literal["onnx"] = Field(description="The towers are ONNX files.")
    vision: Text | None = Field(None, description="Path of the vision tower, relative to the recipe.")
    text: Text | None = Field(
        None, description="Path of the text tower, relative to the recipe.", validate_default=True
    )
    preprocess: Preprocess = Field(description="How their inputs are made.")
    logit_scale: PositiveNumber | None = Field(None, description="Scale of the similarities, where there is one.")
    normalize: bool = Field(True, description="The towers' embeddings are, or are to be made, of length 1.")

    @field_validator("text")
    @classmethod
    def _some_tower(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is None and info.data.get("vision", "") is None:
            raise ValueError("give vision, text or both: the paths of the ONNX files")
        return text

    @field_validator("preprocess")
    @classmethod
    def _for_each_tower(cls, preprocess: Preprocess, info: ValidationInfo) -> Preprocess:
        for tower, key in (("vision", "image"), ("text", "text")):
            if info.data.get(tower) and getattr(preprocess, key) is None:
                raise ValueError(f"{key} is required, because there is a {tower} tower")
        return preprocess


def _model(value: Any) -> str:
    source = value.get("source") if isinstance(value, Mapping) else getattr(value, "source", None)
    return "OnnxModel" if source == "onnx" else "NamedModel"


ModelSource = Annotated[
    Annotated[NamedModel, Tag("NamedModel")] | Annotated[OnnxModel, Tag("OnnxModel")], Discriminator(_model)
]


class Columns(Strict):
    """What a data set calls its columns."""

    image: Text | None = Field(None, description="Column of the image or its file name.")
    text: Text | None = Field(None, description="Column of the text.")
    label: Text | None = Field(None, description="Column of the class.")


class DataSource(Strict):
    """A named data set: rendered scenes, a folder, or a data set of the hub."""

    source: Text = Field(description="scenes, a folder (./path), or a hub id, which needs a revision.")
    revision: Revision | None = Field(
        None, validate_default=True, description="Commit, 40 hex digits; a hub id needs one."
    )
    split: Text | None = Field(None, description="Which part of the data set.")
    samples: PositiveInt | None = Field(None, description="How many items; all of them if not given.")
    kind: Name | None = Field(None, description="Which kind of scene, or which reader.")
    columns: Columns | None = Field(None, description="What the data set calls its columns.")
    seed: Seed = Field(0, description="Decides which items are taken.")
    restore_aspect: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="Width and height that stretched images of a folder had: [3, 4]."
    )
    feeding: Feeding | None = Field(None, description="How batches are made, of data.training only.")

    @field_validator("revision")
    @classmethod
    def _pinned(cls, revision: str | None, info: ValidationInfo) -> str | None:
        source = info.data.get("source")
        if revision is None and source is not None and place(source) == "hub":
            raise ValueError(f"is required for the hub id {shown(source)} (write './{source}' if it is a folder)")
        _only_of_hub(revision, info)
        if revision is not None and not _COMMIT.fullmatch(revision):
            raise ValueError(f"must be a commit, 40 hex digits, not {shown(revision)}: tags and branches can move")
        return revision


def _only_of_hub(revision: str | None, info: ValidationInfo) -> str | None:
    source = info.data.get("source")
    if revision is not None and source is not None and place(source) != "hub":
        raise ValueError(f"only a hub id has a revision, and {shown(source)} is none")
    return revision
