"""Weights of bitsandbytes in safetensors, as transformers names them: written, counted, and put into a torch model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import EnvironmentFailure, IntegrityError
from compress.models.treatment import BnbWeights

Arrays = dict[str, NDArray[Any]]
STATE: Final = "quant_state.bitsandbytes__"


def stored(module: str, held: BnbWeights) -> Arrays:
    """The entries of one linear layer's weight."""
    weight = f"{module}.weight"
    if held.weights == "int8":
        row_major = np.zeros((), np.uint8)  # the only layout that bitsandbytes still has
        return {weight: held.codes, f"{module}.SCB": held.scales, f"{module}.weight_format": row_major}
    told = {
        "quant_type": held.weights, "blocksize": held.block, "dtype": "float32", "shape": [held.rows, held.columns],
    }  # fmt: skip
    return {
        weight: held.codes,
        f"{weight}.absmax": held.scales,
        f"{weight}.quant_map": held.table,
        f"{weight}.{STATE}{held.weights}": np.frombuffer(json.dumps(told).encode(), np.uint8),
    }


def save(weights: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write weights; the same weights give the same bytes."""
    from safetensors.numpy import save as packed

    held = {name: np.ascontiguousarray(weights[name]).reshape(weights[name].shape) for name in sorted(weights)}
    path.write_bytes(packed(held, {"format": "pt"}))


def kinds(path: Path, modules: Iterable[str]) -> Counter[str]:
    """How linear layers are stored in a file, by what its entries are and how many bytes they have."""
    from safetensors import safe_open

    counted: Counter[str] = Counter()
    with safe_open(path, "numpy") as opened:
        names = set(opened.keys())
        for module in modules:
            weight = f"{module}.weight"
            told = next((name for name in names if name.startswith(f"{weight}.{STATE}")), None)
            if weight not in names:
                counted["missing linear"] += 1
            elif told is not None:
                counted[_four_bits(opened, weight, told)] += 1
            else:
                dtype = opened.get_slice(weight).get_dtype()
                scaled = f"{module}.SCB" in names
                counted[{"I8": "int8 linear" if scaled else "unscaled int8 linear"}.get(dtype, "float linear")] += 1
    return counted


def _four_bits(opened: Any, weight: str, state: str) -> str:
    """`nf4 linear`, if the codes and scales are as many as the shape says."""
    told = json.loads(opened.get_tensor(state).tobytes())
    count = int(np.prod(told["shape"]))
    codes, scales = opened.get_tensor(weight), opened.get_tensor(f"{weight}.absmax")
    whole = codes.size == -(-count // 2) and scales.size == -(-count // told["blocksize"])
    return f"{told['quant_type']} linear" + ("" if whole else " (wrong size)")


def config(kind: str, skipped: list[str]) -> dict[str, Any]:
    """`quantization_config` of transformers; `skipped` are the linear layers that stay in float."""
    told: dict[str, Any] = {"quant_method": "bitsandbytes", "llm_int8_skip_modules": skipped}
    if kind == "int8":
        return {**told, "load_in_8bit": True, "load_in_4bit": False, "llm_int8_threshold": 0.0}
    four = {"load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_compute_dtype": "float32"}
    return {**told, **four, "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": False}


def put(model: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Give a torch model layers of bitsandbytes wherever its weights are stored so; returns what is left to load.

    Raises EnvironmentFailure where bitsandbytes is not installed, IntegrityError for weights that fit no layer.
    """
    left = dict(state)
    four = {name: name.split(f".weight.{STATE}")[0] for name in state if f".weight.{STATE}" in name}
    eight = [name.removesuffix(".SCB") for name in state if name.endswith(".SCB")]
    if not four and not eight:
        return left
    try:
        import bitsandbytes
    except ImportError as error:
        raise EnvironmentFailure("bitsandbytes is not installed", hint="install the extra [bnb]") from error
    for module in (*four.values(), *eight):
        parent, _, name = module.rpartition(".")
        try:
            holder = model.get_submodule(parent)
            made = _layer(bitsandbytes.nn, getattr(holder, name), module, left)
        except (AttributeError, KeyError) as error:
            raise IntegrityError(
                f"the weights hold a layer that the model has not, or not wholly: {error}", module
            ) from error
        setattr(holder, name, made)
    return left


def _layer(nn: Any, old: Any, module: str, left: dict[str, Any]) -> Any:
    """The layer in place of a linear one; takes its entries out of what is left."""
    weight, bias = left.pop(f"{module}.weight"), left.pop(f"{module}.bias", None)
    if f"{module}.SCB" in left:
        scales = left.pop(f"{module}.SCB")
        left.pop(f"{module}.weight_format", None)
        made = nn.Linear8bitLt(
            old.in_features, old.out_features, bias=bias is not None, has_fp16_weights=False, threshold=0.0
        )
        made.weight = nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False, CB=weight, SCB=scales)
    else:
        start = f"{module}.weight."
        told = {name.removeprefix(start): left.pop(name) for name in list(left) if name.startswith(start)}
        made = nn.Linear4bit(old.in_features, old.out_features, bias=bias is not None, compute_dtype=old.weight.dtype)
        made.weight = nn.Params4bit.from_prequantized(weight, told, requires_grad=False, device="cpu", module=made)
    if bias is not None:
        made.bias.data = bias.clone()
    return made
