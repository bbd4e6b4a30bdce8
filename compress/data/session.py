"""The towers of an artifact, opened from their bytes by ONNX Runtime on the provider asked for, or by torch."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.core import names
from compress.core.errors import CompressError, EnvironmentFailure, IntegrityError
from compress.data import runtime as runtimes
from compress.data.child import Limits
from compress.data.preprocess import last_token, open_preprocess
from compress.data.runtime import Runtime, Session, TowerFile

_LEVELS: Final = {
    "disable": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL",
}  # fmt: skip
_DTYPES: Final = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
}  # fmt: skip
_EXTERNAL: Final = "session.model_external_initializers_file_folder_path"
_SPINNING: Final = "session.intra_op.allow_spinning"
TORCH: Final = ".safetensors"
"""Ends the file of a tower that torch runs; its code is found by name, because it knows models and this does not."""

Array = NDArray[Any]


class Encoder:
    """The towers of an artifact with their preprocessing: images and texts in, embeddings out.

    `resting` is for several of them in one process: the threads of each rest between its runs.
    """

    def __init__(self, folder: Path, runtime: Runtime | None = None, resting: bool = False) -> None:
        self.runtime = runtime or runtimes.read(folder)
        self._preprocess = open_preprocess(folder, self.runtime)
        vision, text, session = self.runtime.towers.vision, self.runtime.towers.text, self.runtime.session
        self.vision = None if vision is None else Tower(folder, vision, session, resting)
        self.text = None if text is None else Tower(folder, text, session, resting)
        self.folder = folder

    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Embeddings of images, (n, D); D is 0 where there is no vision tower, else all numbers of one."""
        if self.vision is None:
            return np.empty((len(images), 0), np.float32)
        return self.vision.encode(self.image_feed(images))

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of texts, (n, D); D is 0 where there is no text tower."""
        if self.text is None:
            return np.empty((len(texts), 0), np.float32)
        return self.text.encode(self.text_feed(texts))

    def image_feed(self, images: Sequence[Image.Image]) -> dict[str, Array]:
        """What the vision tower takes for these images."""
        vision = _there(self.vision)
        return vision.cast({vision.file.input: self._preprocess.images(images)})

    def text_feed(self, texts: Sequence[str]) -> dict[str, Array]:
        """What the text tower takes for these texts."""
        text = _there(self.text)
        ids, mask = self._preprocess.texts(texts, text.fixed(text.file.input, axis=1))
        feed: dict[str, Array] = {text.file.input: ids}
        if text.file.mask is not None:
            feed[text.file.mask] = mask
        if text.file.eos is not None:
            feed[text.file.eos] = last_token(mask)
        return text.cast(feed)

    def token_counts(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """How many tokens texts have (n,), those before and behind them included and padding not."""
        text = _there(self.text)
        counts: NDArray[np.int64] = self._preprocess.texts(texts, text.fixed(text.file.input, axis=1))[1].sum(axis=1)
        return counts


def _there(tower: Tower | None) -> Tower:
    if tower is None:
        raise CompressError("the encoder has no such tower")
    return tower


class Tower:
    """One ONNX file in a session."""

    def __init__(self, folder: Path, file: TowerFile, session: Session, resting: bool = False) -> None:
        self.file = file
        self._session = open_session(folder, file.file, session, resting=resting)
        self._inputs = {each.name: each for each in self._session.get_inputs()}
        named = {file.input, file.mask, file.eos} - {None}
        if set(self._inputs) != named or file.output not in {each.name for each in self._session.get_outputs()}:
            said = f"{sorted(map(str, named))} -> {file.output}"
            raise IntegrityError(f"the graph takes {sorted(self._inputs)}, the runtime file says {said}", file.file)

    def fixed(self, name: str, axis: int) -> int | None:
        """The length of an input's axis where the graph fixes it."""
        size = self._inputs[name].shape[axis]
        return size if isinstance(size, int) else None

    def encode(self, feed: dict[str, Array]) -> NDArray[np.float32]:
        """Run on (n, ...) inputs of the right types; a graph with a fixed batch runs as often as it must.

        Whatever shape a graph gives an item, such as (classes, steps), comes back flat.
        """
        total = len(feed[self.file.input])
        step = self.fixed(self.file.input, 0) or max(total, 1)
        parts = [
            self._run({name: rows[at : at + step] for name, rows in feed.items()}, step) for at in range(0, total, step)
        ]
        return np.concatenate(parts)[:total].reshape(total, -1)

    def _run(self, feed: dict[str, Array], step: int) -> NDArray[np.float32]:
        missing = step - len(feed[self.file.input])
        full = {
            name: np.concatenate([rows, *[rows[-1:]] * missing]) if missing else rows for name, rows in feed.items()
        }
        return np.asarray(self._session.run([self.file.output], full)[0], np.float32)

    def cast(self, feed: dict[str, Array]) -> dict[str, Array]:
        """Inputs in the types that the graph declares."""
        return {name: rows.astype(_DTYPES[self._inputs[name].type], copy=False) for name, rows in feed.items()}


def open_session(folder: Path, name: str, asked: Session, shown: str | None = None, resting: bool = False) -> Any:
    """A session, or EnvironmentFailure where another provider than the one asked for would run.

    `shown` makes a tensor inside the graph an output as well; the file stays as it is. Threads of a session turn for a
    while after each run, to be there at once for the next; those of one that is `resting` do not.
    """
    if name.endswith(TORCH):
        _check_regular(folder, name)
        return names.load("compress.models", "torch_session").open_tower(folder, name, asked.intra_op_num_threads)
    import onnxruntime as ort

    check_files(folder, name)
    lacking = [each for each in asked.providers if each not in ort.get_available_providers()]
    if lacking:
        raise EnvironmentFailure(
            f"onnxruntime {ort.__version__} has no {', '.join(lacking)} here",
            name,
            "install the extra of this target, or choose another target",
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = asked.intra_op_num_threads
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[asked.graph_optimization_level])
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    if resting:
        options.add_session_config_entry(_SPINNING, "0")
    model: str | bytes = str(folder / name)
    if shown is not None:
        model = _showing(folder / name, shown)
        options.add_session_config_entry(_EXTERNAL, str((folder / name).parent))
    try:
        session = ort.InferenceSession(model, options, providers=list(asked.providers))
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime raises a dozen unrelated classes for files it cannot open
        raise CompressError(f"onnxruntime cannot open it: {error}", name) from error
    ran = [each for each in session.get_providers() if each in asked.providers or each != "CPUExecutionProvider"]
    if ran != list(asked.providers):  # the CPU is always added last; whoever asks for it names it
        raise EnvironmentFailure(
            f"asked for {', '.join(asked.providers)}, got {', '.join(session.get_providers())}", name
        )
    return session


def _showing(path: Path, tensor: str) -> bytes:
    """The graph in a file with one more output, of all tokens; weights that lie beside the file stay there."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path), load_external_data=False)
    if not any(tensor in node.output for node in model.graph.node):
        raise IntegrityError(f"the graph computes no {tensor!r}, which the runtime file names", path.name)
    model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    for weight in model.graph.initializer:
        if weight.name == runtimes.COMPUTED:
            weight.CopyFrom(numpy_helper.from_array(np.array([np.iinfo(np.int64).max]), weight.name))
    content: bytes = model.SerializeToString()
    return content


def check_files(folder: Path, name: str) -> None:
    """Raise IntegrityError unless an ONNX file and its external data are regular files inside the folder."""
    _check_regular(folder, name)
    for location in external_locations(folder / name):
        plain = PurePosixPath(location)
        if plain.is_absolute() or ".." in plain.parts or "\\" in location or "\0" in location:
            raise IntegrityError(f"its weights are said to be in {location!r}, outside of the artifact", name)
        _check_regular(folder, str(PurePosixPath(name).parent / plain))


def _check_regular(folder: Path, name: str) -> None:
    path = folder
    for part in PurePosixPath(name).parts:
        path /= part
        try:
            found = path.lstat()
        except OSError as error:
            raise IntegrityError(f"cannot be read: {error.strerror}", name) from None
        if stat.S_ISLNK(found.st_mode):
            raise IntegrityError("is a link, or lies behind one", name)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise IntegrityError("is not a regular file with one name", name)


def external_locations(path: Path) -> tuple[str, ...]:
    """Where the graph says that weights are stored outside of the ONNX file, in whatever part of the graph."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise IntegrityError(f"is no ONNX file: {error}", path.name) from None
    stored = (each for each in _tensors(model) if each.data_location == onnx.TensorProto.EXTERNAL)
    found = (entry.value for each in stored for entry in each.external_data if entry.key == "location")
    return tuple(dict.fromkeys(found))


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor below a protobuf message: initializers, attributes, subgraphs, functions, whatever comes next."""
    from onnx import TensorProto

    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for each in [value] if hasattr(value, "ListFields") else value:
            if isinstance(each, TensorProto):
                yield each
            elif hasattr(each, "ListFields"):
                yield from _tensors(each)


def bounded(limits: Limits, *folders: Path) -> Limits:
    """The limits for a child that opens these folders: CUDA maps far more address space than there is memory."""
    asked = {provider for folder in folders for provider in runtimes.read(folder).session.providers}
    return limits if asked == {"CPUExecutionProvider"} else replace(limits, memory=None)
