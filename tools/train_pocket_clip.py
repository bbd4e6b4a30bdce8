"""Train pocket-clip, the embedded CLIP, on rendered scenes: seeded, resumable, on a CPU or a GPU.

    python tools/train_pocket_clip.py --output compress/bundled/pocket_clip

What makes a small tower read: every patch is told which character it covers and which of its word (dense labels), the
embedding has to give back the characters in order, the contrastive loss has look-alike captions to tell apart, and a
curriculum goes from large glyphs on the patch grid to small, jittered, rotated and faint ones.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from transformers import CLIPConfig, CLIPModel

from compress.data.scenes import canvas, charts, pages, pins, reading, relations, shapes
from compress.data.scenes.codes import ALPHABET, look_alikes, sample_code
from compress.data.scenes.scene import SIZE, Scene, pick, stream

CELLS = 16  # dense labels stand on a 16 x 16 grid: four cells a patch, so that 6 px glyphs still get one each
MEAN = STD = 0.5
COLOURS, FORMS = tuple(shapes.HUES), (*shapes.SHAPES, "bar")
MIXTURE = (("reading", 0.66), ("relations", 0.12), ("shapes", 0.06), ("pins", 0.08), ("charts", 0.08))
POLISH = 0.8  # from this share of the run on, more codes, and their nearest look-alikes as wrong captions
POLISHED = (("reading", 0.80), ("relations", 0.07), ("shapes", 0.03), ("pins", 0.05), ("charts", 0.05))
NEAREST = 7  # wrong captions of a code that come first, because they change a character into one it is taken for
FEWER_SMALL = 0.6  # of the codes at 6 to 8 px, which teach least, give way to larger ones after the curriculum
MAX_CODE = 4
CENTRES = np.stack(np.meshgrid(*[(np.arange(CELLS, dtype=np.float32) + 0.5) * SIZE / CELLS] * 2)).reshape(2, -1)


@dataclass(frozen=True)
class Settings:
    """Everything that decides the trained weights; stored in the checkpoint and compared on resume."""

    seed: int = 0
    steps: int = 10_000
    batch: int = 128
    negatives: int = 3
    rate: float = 1.2e-3
    weight_decay: float = 0.05
    warmup: float = 0.03
    curriculum: tuple[float, float] = (0.02, 0.25)
    pages: tuple[float, float, float] = (0.0, 0.75, 0.4)
    vision_width: int = 192
    vision_depth: int = 4
    text_width: int = 128
    text_depth: int = 3
    projection: int = 192
    patch: int = 8


# ---------------------------------------------------------------- what the model reads: tokens and pixels


def vocabulary() -> list[str]:
    """Special tokens, the words of the captions, and single characters for everything else."""
    words = "a an the this that is one two three four text picture image of and or with without not no in on at"
    words += " left right above below under over next to pin bar label line value word code chart photo there"
    nouns = [*shapes.HUES, "black", "white", "grey", *(form + end for form in FORMS for end in ("", "s")), "crosses"]
    chars = [chr(code) for code in range(33, 127)]
    return list(dict.fromkeys(["<pad>", "<bos>", "<unk>", "<eos>", *words.split(), *nouns, *chars]))


def save_processor(folder: Path) -> None:
    """Write the tokenizer and image processor files that `transformers.AutoProcessor` reads."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import CLIPImageProcessorPil, CLIPProcessor, PreTrainedTokenizerFast

    vocab = {token: at for at, token in enumerate(vocabulary())}
    core = Tokenizer(
        models.WordPiece(vocab, unk_token="<unk>", continuing_subword_prefix="", max_input_chars_per_word=64)
    )
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing("<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 3)])
    core.decoder = None
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>",
        model_max_length=MAX_TOKENS, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    side = {"height": SIZE, "width": SIZE}
    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size=side, image_mean=[MEAN] * 3, image_std=[STD] * 3, do_convert_rgb=True
    )
    CLIPProcessor(images, tokenizer).save_pretrained(folder)


MAX_TOKENS = 24


def token_ids(texts: list[str], table: dict[str, int]) -> NDArray[np.int64]:
    """Token ids, padded to the longest: the same greedy longest match that the saved tokenizer does."""
    rows = []
    for text in texts:
        ids = [table["<bos>"]]
        for word in text.split():
            ids += [table[word]] if word in table else [table[char] for char in word]
        rows.append([*ids, table["<eos>"]])
    width = max(map(len, rows))
    return np.array([row + [table["<pad>"]] * (width - len(row)) for row in rows])


# ---------------------------------------------------------------- what it is shown: curriculum and labels


def easy_reading(rng: np.random.Generator) -> Scene:
    """A large code on the patch grid in strong contrast: where reading starts."""
    while True:
        code = sample_code(rng, "train", int(rng.integers(1, 5)))
        how = reading.Print((pick(rng, canvas.FONTS), int(rng.integers(12, 21))), (140, 255), aligned=True, worn=0)
        if reading.fits(code, how):
            return reading.draw(rng, code, how, look_alikes(rng, code, 4) if len(code) > 1 else (), {})


def polishing(settings: Settings, index: int) -> bool:
    """Whether a scene belongs to the last part of the run."""
    return index >= POLISH * settings.steps * settings.batch


def training_scene(rng: np.random.Generator, settings: Settings, index: int) -> tuple[str, Scene]:
    """The scene at a place in the run; how often it is an easy one falls with the curriculum."""
    first, last, share = settings.pages
    if first <= index / (settings.steps * settings.batch) < last and rng.random() < share:
        return "pages", pages.render(rng, "train", index)
    mixture = POLISHED if polishing(settings, index) else MIXTURE
    kind = str(rng.choice([kind for kind, _ in mixture], p=[share for _, share in mixture]))
    if kind != "reading":
        module = {"relations": relations, "shapes": shapes, "pins": pins, "charts": charts}[kind]
        return kind, module.render(rng, "train", int(rng.integers(1 << 20)))
    start, end = settings.curriculum
    hard = (index / (settings.steps * settings.batch) - start) / (end - start)
    if rng.random() > np.clip(hard, 0, 0.97):
        return kind, easy_reading(rng)
    turn = int(rng.integers(1 << 20))
    if hard >= 1 and turn % len(reading.SIZES) == 0 and rng.random() < FEWER_SMALL:
        turn += int(rng.integers(1, len(reading.SIZES)))
    return kind, reading.render(rng, "train", turn)


def dense_labels(scene: Scene) -> NDArray[np.int64]:
    """What each cell of the grid covers: (4, CELLS, CELLS) classes of character, place in its word, colour, form.

    0 stands for nothing.
    """
    labels = np.zeros((4, CELLS * CELLS), np.int64)
    if not scene.marks:
        return labels.reshape(-1, CELLS, CELLS)
    quads = np.array([mark.corners for mark in scene.marks], np.float32)[..., None]  # marks, corners, xy, cells
    edges = np.roll(quads, -1, 1) - quads
    away = CENTRES - quads
    inside = (edges[:, :, 0] * away[:, :, 1] - edges[:, :, 1] * away[:, :, 0]).min(1) >= 0
    for mark, covered in zip(scene.marks, inside, strict=True):
        if mark.kind == "char":
            labels[0, covered] = 1 + ALPHABET.index(mark.label)
            labels[1, covered] = min(mark.place, MAX_CODE)
        else:
            colour, form = mark.label.split()
            labels[2, covered], labels[3, covered] = 1 + COLOURS.index(colour), 1 + FORMS.index(form)
    return labels.reshape(-1, CELLS, CELLS)


def order_labels(kind: str, scene: Scene) -> NDArray[np.int64]:
    """The characters of a code in order, (MAX_CODE,) class numbers; -100 where the scene is no code."""
    labels = np.full(MAX_CODE, -100, np.int64)
    if kind == "reading":
        labels[:] = 0
        code = scene.caption.split()[-1]
        labels[: len(code)] = [1 + ALPHABET.index(char) for char in code]
    return labels


class Batches(IterableDataset[dict[str, Tensor]]):
    """Batches of the run from `start` on; batch k is the same whether the run was interrupted or not."""

    def __init__(self, settings: Settings, start: int) -> None:
        self.settings, self.start = settings, start

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = torch.utils.data.get_worker_info()
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        table = {token: at for at, token in enumerate(vocabulary())}
        for step in range(self.start + offset, self.settings.steps, stride):
            yield self._batch(step, table)

    def _batch(self, step: int, table: dict[str, int]) -> dict[str, Tensor]:
        size, count = self.settings.batch, self.settings.negatives
        scenes = []
        for index in range(step * size, (step + 1) * size):
            rng = stream("training", "train", self.settings.seed, index)
            kind, scene = training_scene(rng, self.settings, index)
            pool = scene.negatives[: NEAREST if kind == "reading" and polishing(self.settings, index) else None]
            wrong = [pool[at] for at in rng.permutation(len(pool))[:count]]
            scenes.append((kind, scene, wrong))
        captions = [scene.caption for _, scene, _ in scenes]
        texts = captions + [text for _, _, wrong in scenes for text in wrong]
        same = np.array([[text == caption for text in texts] for caption in captions])
        np.fill_diagonal(same[:, :size], False)
        made = {
            "pixels": np.stack([scene.image for _, scene, _ in scenes]),
            "ids": token_ids(texts, table),
            "same": same,
            "dense": np.stack([dense_labels(scene) for _, scene, _ in scenes]),
            "order": np.stack([order_labels(kind, scene) for kind, scene, _ in scenes]),
        }
        return {name: torch.from_numpy(values) for name, values in made.items()}


# ---------------------------------------------------------------- the model and its losses


class Teacher(nn.Module):
    """The heads that exist only while training: dense labels per patch and the characters in order."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.classes = (len(ALPHABET) + 1, MAX_CODE + 1, len(COLOURS) + 1, len(FORMS) + 1)
        self.dense = nn.Linear(settings.vision_width, 4 * sum(self.classes))
        self.order = nn.Linear(settings.projection, MAX_CODE * self.classes[0])

    def dense_loss(self, patches: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy per cell, (B, P, width) against (B, 4, CELLS, CELLS); empty cells weigh a tenth."""
        side = math.isqrt(patches.shape[1])
        near = CELLS // side
        cells = labels.reshape(-1, 4, side, near, side, near).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4)
        scores = self.dense(patches).float().reshape(len(cells), -1).split(self.classes, 1)
        total = patches.new_zeros((), dtype=torch.float32)
        for at, (score, count) in enumerate(zip(scores, self.classes, strict=True)):
            weight = torch.ones(count, device=score.device)
            weight[0] = 0.1
            total = total + F.cross_entropy(score, cells[:, at], weight)
        return total

    def order_loss(self, embeds: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the characters in order, (B, projection) against (B, MAX_CODE)."""
        return F.cross_entropy(self.order(embeds * 12).float().reshape(labels.numel(), -1), labels.reshape(-1))


def new_model(settings: Settings) -> CLIPModel:
    """A `CLIPModel` with fresh weights."""
    text = {
        "vocab_size": len(vocabulary()), "max_position_embeddings": MAX_TOKENS,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3, "hidden_act": "gelu",
        "hidden_size": settings.text_width, "intermediate_size": 4 * settings.text_width,
        "num_hidden_layers": settings.text_depth, "num_attention_heads": settings.text_width // 32,
    }  # fmt: skip
    vision = {
        "hidden_size": settings.vision_width, "intermediate_size": 4 * settings.vision_width,
        "num_hidden_layers": settings.vision_depth, "num_attention_heads": settings.vision_width // 32,
        "image_size": SIZE, "patch_size": settings.patch, "hidden_act": "gelu",
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=settings.projection)
    config._attn_implementation = "eager"  # the fused kernel's backward pass is slow on a CPU at 65 tokens
    return CLIPModel(config)


def losses(model: CLIPModel, teacher: Teacher, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parts of the training loss of one batch."""
    size = len(batch["pixels"])
    pixels = (batch["pixels"].permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
    seen = model.vision_model(pixels)
    image = F.normalize(model.visual_projection(seen.pooler_output).float(), dim=-1)
    text = F.normalize(model.text_projection(model.text_model(batch["ids"]).pooler_output).float(), dim=-1)
    scale = model.logit_scale.clamp(max=math.log(100)).exp()
    scores = (scale * image @ text.T).masked_fill(batch["same"], -1e4)
    target = torch.arange(size, device=scores.device)
    return {
        "contrastive": (F.cross_entropy(scores, target) + 0.5 * F.cross_entropy(scores[:, :size].T, target)),
        "order": 2 * teacher.order_loss(image, batch["order"]),
        "order_text": 0.5 * teacher.order_loss(text[:size], batch["order"]),
        "dense": 3 * teacher.dense_loss(seen.last_hidden_state[:, 1:], batch["dense"]),
    }


def schedule(settings: Settings, step: int) -> float:
    """Learning rate: linear warm-up, then cosine to zero."""
    warm = settings.warmup * settings.steps
    if step < warm:
        return settings.rate * (step + 1) / warm
    return settings.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / (settings.steps - warm)))


# ---------------------------------------------------------------- the run


def train(settings: Settings, run: Path, workers: int) -> CLIPModel:
    """Train to the end, from the last checkpoint under `run` if there is one."""
    torch.manual_seed(settings.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, teacher = new_model(settings).to(device), Teacher(settings).to(device)
    weights = [*model.named_parameters(), *teacher.named_parameters()]
    groups = [
        {"params": [p for _, p in weights if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for _, p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98), fused=True)
    checkpoint, start, spent = run / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        held: dict[str, Any] = torch.load(checkpoint, weights_only=True, map_location=device)
        if held["settings"] != json.loads(json.dumps(asdict(settings))):
            raise SystemExit(f"{checkpoint} is of a run with other settings; remove it or name another --run")
        model.load_state_dict(held["model"])
        teacher.load_state_dict(held["teacher"])
        optimizer.load_state_dict(held["optimizer"])
        start, spent = held["step"], held["seconds"]
    loader = DataLoader(Batches(settings, start), batch_size=None, num_workers=workers, prefetch_factor=4)
    began = time.monotonic()
    shown: dict[str, float] = {}
    for step, batch in enumerate(loader, start):
        for group in optimizer.param_groups:
            group["lr"] = schedule(settings, step)
        with torch.autocast(device.type, torch.bfloat16):
            parts = losses(model, teacher, {name: values.to(device) for name, values in batch.items()})
        total: Tensor = sum(parts.values(), torch.zeros((), device=device))
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_([p for _, p in weights], 1.0)
        optimizer.step()
        shown = {name: 0.95 * shown.get(name, part.item()) + 0.05 * part.item() for name, part in parts.items()}
        seconds = spent + time.monotonic() - began
        if (step + 1) % 50 == 0:
            told = " ".join(f"{name} {value:.3f}" for name, value in shown.items())
            left = (time.monotonic() - began) / (step + 1 - start) * (settings.steps - step - 1)
            print(f"step {step + 1}/{settings.steps}  {told}  {seconds:.0f} s, {left:.0f} s left", flush=True)
        if (step + 1) % 250 == 0 or step + 1 == settings.steps:
            save_checkpoint(checkpoint, {
                "settings": json.loads(json.dumps(asdict(settings))), "model": model.state_dict(),
                "teacher": teacher.state_dict(), "optimizer": optimizer.state_dict(),
                "step": step + 1, "seconds": seconds,
            })  # fmt: skip
    return model.cpu()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint beside the old one, then replace it in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    torch.save(state, fresh)
    fresh.replace(path)


def main() -> None:
    """Read the command line, train, and write the model folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, required=True, help="folder that gets weights, config and processor files"
    )
    parser.add_argument("--run", type=Path, default=Path("runs/pocket_clip"), help="folder of the checkpoint")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--workers", type=int, default=1, help="processes that render scenes")
    given = parser.parse_args()
    settings = Settings(seed=given.seed, steps=given.steps)
    model = train(settings, given.run, given.workers)
    model.save_pretrained(given.output)
    save_processor(given.output)


if __name__ == "__main__":
    main()
