"""Trains the demo's hypernetwork with the pack's own trainer, on procedural clips encoded by make_dataset.py.

    python lab/train_hypernet.py --config lab/hypernet.toml

The source of clips is the only thing of its own: pairs of clips of one condition, any direction, speed or
hue, none of the held-out ones. Resumes when the output folder holds checkpoints; runs in several processes
when launched so.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
RESULT = "hypernet.safetensors"
UNSEEN_EVERY = 20  # one condition in so many is never trained on
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


@dataclass(frozen=True)
class PairSource:
    """Draws references and targets of the same condition from the encoded clips.

    rows: the conditions it may draw. contexts: (M, K, tokens, width) text embeddings of what is seen.
    told, told_backwards: of what is seen and happens, played forwards and backwards, for the trainer's
    caption teacher. reversible: see `reversible_rows`.
    """

    latents: Tensor
    contexts: Tensor
    told: Tensor
    told_backwards: Tensor
    names: list[str]
    reversible: Tensor
    rows: Tensor = field(default_factory=lambda: torch.arange(0))

    def sample(self, generator: torch.Generator, batch: int):
        """`batch` references with one target each, in pairs on the same clips (see ClipSource).

        The second of a pair is the first played backwards, which is the opposite semantics on the same
        content; where that is a condition held out or none at all, it is another clip of the same condition.
        """
        from comfy_tools import core_module

        rows = self.rows[torch.randint(0, len(self.rows), (batch // 2,), generator=generator)]
        order = torch.rand(len(rows), self.latents.shape[1], generator=generator).argsort(1)
        backwards = self.reversible[rows]
        second = torch.where(backwards[:, None], order, order.roll(-1, 1))
        both_rows = rows.repeat_interleave(2)
        chosen = torch.stack([order, second], dim=1).flatten(0, 1)
        flip = torch.stack([torch.zeros_like(backwards), backwards], dim=1).flatten()

        def played(latents: Tensor) -> Tensor:
            return torch.where(flip[:, None, None, None, None], latents.flip(2), latents).float()

        import clips

        names = [self.names[i] for i in both_rows.tolist()]
        opposites = clips.OPPOSITE_KINDS
        happens = [opposites.get(n, n) if f else n for n, f in zip(names, flip.tolist(), strict=True)]
        ids = [f"{row}{'-' * f}" for row, f in zip(both_rows.tolist(), flip.tolist(), strict=True)]
        target = (both_rows, chosen[:, 1])
        told = torch.where(flip[:, None, None], self.told_backwards[target], self.told[target])
        return core_module("training.batch").TrainBatch(
            reference_latents=played(self.latents[both_rows, chosen[:, 0]]),
            target_latents=played(self.latents[target]),
            context=self.contexts[target].float(),
            conditions=tuple(happens),
            condition_ids=tuple(ids),
            semantic_context=told.float(),
        )


def reversible_rows(data: dict[str, Tensor]) -> Tensor:
    """(M,) conditions that played backwards are another condition, and none of the held-out ones."""
    import clips
    import conditions

    semantics = clips.Semantics(*(data[f"semantics.{f}"] for f in ("kind", "angle", "amount", "sign")))
    turned, reversible = clips.played_backwards(semantics)
    same = conditions.is_kind(semantics, "shake", "still", "flash")
    return reversible & ~same & ~conditions.is_held_out(turned)


def encode_texts(clip, ids: Tensor) -> Tensor:
    """Token ids (M, K, 16) -> embeddings (M, K, 16, width) by the checkpoint's own text encoder."""
    flat, inverse = ids.flatten(0, 1).unique(dim=0, return_inverse=True)
    tokens = {"l": [[(int(i), 1.0) for i in row] for row in flat]}
    rows = [clip.encode_from_tokens({"l": [chunk]}) for chunk in tokens["l"]]
    return torch.cat(rows)[inverse].unflatten(0, ids.shape[:2]).half()


def make_sources(data: dict[str, Tensor], clip) -> dict[str, PairSource]:
    """The clips to train on, and those of conditions kept to watch the gap between matched and shuffled."""
    import clips

    kinds = [clips.KINDS[k] for k in data["semantics.kind"].tolist()]
    reversible = reversible_rows(data)
    contexts = [
        encode_texts(clip, data[f"{name}_ids"]).clone() for name in ("content", "full", "full_backwards")
    ]
    rows = torch.arange(len(kinds))
    kept = rows % UNSEEN_EVERY == 0
    parts = {"train": rows[~kept], "unseen": rows[kept]}
    return {
        label: PairSource(data["latents"], *contexts, kinds, reversible, part)
        for label, part in parts.items()
    }


def load_backbone(models: Path, feed_forward: bool):
    """The demo's MODEL with its motion module, its CLIP, and the layers that get a LoRA."""
    from comfy_tools import host_module
    from demo_models import BACKBONE, MOTION

    model, clip, _ = host_module("small_checkpoint").load_small_checkpoint(str(models / BACKBONE))
    model = host_module("animatediff").attach_motion_model(model, str(models / MOTION))
    return model, clip, host_module("layers").list_targets(model, feed_forward=feed_forward)


def read_settings(options: argparse.Namespace):
    """The trainer's settings and the hypernetwork's, from the config file and the command line."""
    from comfy_tools import core_module

    sections = core_module("training.settings_file").read_config(
        options.config,
        {
            "training": core_module("training.settings").TrainingSettings,
            "hypernet": core_module("training.new_hypernet").HypernetSettings,
        },
    )
    changes = {} if options.minutes is None else {"max_minutes": options.minutes}
    changes |= {} if options.seed is None else {"seed": options.seed}
    settings = overridden(sections["training"], changes, options.set)
    return settings, overridden(sections["hypernet"], {}, options.shape)


def overridden(settings, changes: dict, pairs: list[str]):
    """A settings object with `changes` and with "name=value" pairs in place of its own values."""
    changes = dict(changes)
    for pair in pairs:
        name, _, text = pair.partition("=")
        kind = type(getattr(settings, name))
        changes[name] = text == "true" if kind is bool else kind(text)
    return replace(settings, **changes)


def train(options: argparse.Namespace) -> None:
    """Trains or resumes; leaves hypernet.safetensors in the output folder."""
    from comfy_tools import core_module, host_module

    processes = core_module("training.processes").Processes.start("cpu")
    settings, shape = read_settings(options)
    model, clip, targets = load_backbone(options.models, shape.layers == "attention_feed_forward")
    training = host_module("denoiser")
    with training.training_mode():
        torch.manual_seed(settings.seed)
        sources = make_sources(load_file(options.data), clip)
        scale = model.model.latent_format.scale_factor
        hypernet = shape.create(targets, 4, scale, "sd1", settings.seed)
        if options.init is not None:
            hypernet.load_state_dict(core_module("model").Video2LoRA.load(options.init).state_dict())
        loop = core_module("training.trainer").Trainer(
            hypernet,
            training.HostDenoiser(model, targets),
            sources["train"],
            settings,
            evaluation={"unseen": sources["unseen"]},
            folder=options.out,
            processes=processes,
        )
        loop.resume()
        result = loop.run()
    if processes.is_main and result.checkpoint is not None:
        shutil.copy(result.checkpoint / RESULT, options.out / RESULT)
    processes.finish()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=ROOT / "lab" / "hypernet.toml")
    parser.add_argument("--data", type=Path, default=ROOT / "lab" / "training" / "dataset.safetensors")
    parser.add_argument("--models", type=Path, default=ROOT / "demo" / "models")
    parser.add_argument("--out", type=Path, default=ROOT / "lab" / "training" / "hypernet")
    parser.add_argument("--minutes", type=float, help="overrides max_minutes of the config")
    parser.add_argument("--seed", type=int, help="overrides the seed of the config")
    parser.add_argument("--init", type=Path, help="start from the weights of this hypernetwork")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="overrides training settings"
    )
    parser.add_argument(
        "--shape", nargs="*", default=[], metavar="NAME=VALUE", help="overrides sizes of the hypernetwork"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a process")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    from comfy_tools import start_host

    with tempfile.TemporaryDirectory() as base:
        start_host(Path(base))
        torch.set_num_threads(options.threads)
        train(options)


if __name__ == "__main__":
    main()
