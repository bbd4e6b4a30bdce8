"""How towers that another tool made take their inputs: by the names of a reference, or as a file says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from compress.core.errors import UsageError
from compress.data.runtime import Plain, Runtime, TowerFile
from compress.pipeline.model import TOKENIZER, tokenizer_file
from compress.recipe import document
from compress.recipe.load import locate
from compress.recipe.sources import TokenizerText, TowerInputs
from compress.targets.graph.contents import Contents

_MASK: Final = "attention_mask"
"""What text towers call their mask everywhere; of a reference without one it cannot be learned."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a file says about the inputs of towers; `tokenizer` is the content of the tokenizer file it names."""

    told: TowerInputs
    where: str
    tokenizer: bytes | None = None

    def applied(self, like: Runtime) -> Runtime:
        """The runtime of a model with these inputs; what is not described stays as it is there.

        Raises UsageError where a tower's inputs are described neither here nor there in the same way.
        """
        preprocess, there = self.told.preprocess, like.preprocess
        old = there if isinstance(there, Plain) else Plain()
        plain: dict[str, Any] = {
            "kind": "plain",
            "image": preprocess.image or old.image,
            "text": preprocess.text or old.text,
        }
        for key in ("image", "text"):
            if plain[key] is None:
                hint = "the reference makes its inputs by processor files, which go with no description"
                raise UsageError(f"preprocess.{key} is required as well", self.where, hint)
            plain[key] = plain[key].model_dump(exclude_none=True)
        if self.tokenizer is not None:
            plain["text"]["tokenizer"] = TOKENIZER
        scale = self.told.logit_scale or like.logit_scale
        changed = {"preprocess": plain, "logit_scale": scale, "normalized": self.told.normalize}
        return Runtime.model_validate({**dict(like), **changed})


def read(path: Path) -> Inputs:
    """What a file says. Raises UsageError where there is none, DocumentError with all that is wrong in it."""
    told = document.decode(document.read(path), TowerInputs)
    text = told.preprocess.text
    named = tokenizer_file(locate(text.tokenizer, path)) if isinstance(text, TokenizerText) else None
    return Inputs(told, str(path), named)


def matched(kind: str, held: Contents, asked: TowerFile | None, place: str, described: bool) -> TowerFile:
    """The names of a file's inputs and output: those of the reference's tower `asked`.

    Where the inputs are `described` and the names are others, the first input is the main one, the second the mask,
    and the only output the embedding, as in a recipe. Raises UsageError with all names where they do not match.
    """
    if asked is not None and asked.input in held.inputs and asked.output in held.outputs:
        rest = set(held.inputs) - {asked.input}
        mask = next((name for name in (asked.mask, _MASK) if name in rest and kind == "text"), None)
        eos = asked.eos if asked.eos in rest else None
        if rest <= {mask, eos}:
            return TowerFile(file=place, input=asked.input, output=asked.output, mask=mask, eos=eos)
    if described and len(held.inputs) in {1, 2 if kind == "text" else 1} and len(held.outputs) == 1:
        return TowerFile(
            file=place, input=held.inputs[0], output=held.outputs[0], mask=dict(enumerate(held.inputs)).get(1)
        )
    raise UsageError(
        f"takes {_listed(held.inputs)} and gives {_listed(held.outputs)}; {_wanted(asked)}",
        f"{kind} tower",
        "rename them, name a model that they match with --like, or describe the inputs with --preprocess FILE.yaml",
    )


def _wanted(asked: TowerFile | None) -> str:
    if asked is None:
        return "the reference has no such tower"
    names = [name for name in (asked.input, asked.mask, asked.eos) if name is not None]
    return f"the reference takes {_listed(names)} and gives {asked.output}"


def _listed(names: Any) -> str:
    return ", ".join(names) or "nothing"
