"""Trains the demo's hypernetwork with the pack's own trainer, on procedural clips encoded by make_dataset.py.

    python lab/train_hypernet.py --config lab/training/hypernet.toml

The source of clips (pairs.py) is the only thing of its own: pairs of clips of one condition, any direction,
speed or hue, none of the held-out ones, the reference mostly in foreign looks. Resumes when the output
folder holds checkpoints; runs in several processes when launched so.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from hosted.pairs import PairSource, name_of
from hosted.texts import encode_texts, encode_told
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
RESULT = "hypernet.safetensors"
UNSEEN_EVERY = 20  # one condition in so many is never trained on
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


def semantics_of(data: dict[str, Tensor]):
    """The `Semantics` of the conditions of a dataset."""
    from world import clips

    return clips.Semantics(*(data[f"semantics.{f}"] for f in ("kind", "angle", "amount", "sign")))


def kept_aside(twin: Tensor, every: int) -> Tensor:
    """(M,) one condition in so many, each together with its twin (M,), -1 for none."""
    rows = torch.arange(len(twin))
    return torch.where(twin >= 0, torch.minimum(rows, twin), rows) % every == 0


def reversible_rows(data: dict[str, Tensor]) -> Tensor:
    """(M,) conditions that played backwards are another condition, and none of the held-out ones."""
    from world import clips, conditions

    semantics = semantics_of(data)
    turned, reversible = clips.played_backwards(semantics)
    nothing = semantics.of_kind("still").all(1)
    same = conditions.is_kind(semantics, "shake", "flash") | nothing
    return reversible & ~same & ~conditions.is_held_out(turned)


def joined(files: list[Path]) -> dict[str, Tensor]:
    """The conditions of several files, which processes of other seeds made beside each other."""
    parts = [load_file(file) for file in files]
    for before, part in enumerate(parts):
        offset = sum(len(other["twin"]) for other in parts[:before])
        part["twin"] = torch.where(part["twin"] >= 0, part["twin"] + offset, part["twin"])
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def make_sources(data: dict[str, Tensor], clip, louder: bool = False) -> dict[str, PairSource]:
    """The clips to train on, and those of conditions kept to watch the gap between matched and shuffled.

    louder: a guided teacher goes away from the louder of two things alone.
    """
    from world import clips
    from world.captions import CaptionTokens
    from world.conditions import second_alone

    kinds = [name_of(row) for row in data["semantics.kind"].tolist()]
    reversible = reversible_rows(data)
    semantics, seen, tokens = semantics_of(data), data["content_ids"], CaptionTokens()
    backwards = clips.played_backwards(semantics)[0]
    contexts = {
        "contexts": encode_texts(clip, seen).clone(),
        "told": encode_told(clip, tokens, semantics, seen),
        "told_backwards": encode_told(clip, tokens, backwards, seen),
        "empty": encode_texts(clip, tokens([""]))[0].clone(),
    }
    if louder:
        contexts["loud"] = encode_told(clip, tokens, second_alone(semantics), seen)
        contexts["loud_backwards"] = encode_told(clip, tokens, second_alone(backwards), seen)
    # A pan and its twin are kept or trained on together.
    twin, rows = data["twin"], torch.arange(len(kinds))
    kept = kept_aside(twin, UNSEEN_EVERY)
    shared = {
        "latents": data["latents"],
        "foreign": data["foreign"],
        "odd": {int(name[4:]): value for name, value in data.items() if name.startswith("odd.")},
        "format": data["format"],
        "names": kinds,
        "reversible": reversible,
        "twin": twin,
        **contexts,
    }
    return {
        name: PairSource(**shared, rows=rows[part]) for name, part in (("train", ~kept), ("unseen", kept))
    }


def load_backbone(models: Path, spec):
    """The demo's MODEL with its motion module, its CLIP, and the layers that get a LoRA."""
    from hosted.comfy_tools import host_module
    from hosted.demo_models import BACKBONE, MOTION

    model, clip, _ = host_module("models.small_checkpoint").load_small_checkpoint(str(models / BACKBONE))
    model = host_module("models.animatediff").attach_motion_model(model, str(models / MOTION))
    return model, clip, host_module("models.layers").list_targets(model, spec)


def read_settings(options: argparse.Namespace):
    """The trainer's settings and the hypernetwork's, from the config file and the command line."""
    from hosted.comfy_tools import core_module

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
        changes[name] = kind(json.loads(text)) if kind in (bool, tuple) else kind(text)
    return replace(settings, **changes)


def start_from(hypernet: torch.nn.Module, earlier: torch.nn.Module, anew: list[str]) -> None:
    """Takes the weights of an earlier hypernetwork, but for those of parts that are new to it or named."""
    own, state = hypernet.state_dict(), earlier.state_dict()
    for name, value in own.items():
        known = name in state and state[name].shape == value.shape
        if known and not any(name.startswith(part) for part in anew):
            own[name] = state[name]
        else:
            print(f"{name} starts anew", flush=True)
    hypernet.load_state_dict(own)


def train(options: argparse.Namespace) -> None:
    """Trains or resumes; leaves hypernet.safetensors in the output folder."""
    from hosted.comfy_tools import core_module, host_module
    from world import clips

    processes = core_module("training.processes").Processes.start("cpu")
    settings, shape = read_settings(options)
    model, clip, targets = load_backbone(options.models, shape.target_spec())
    training = host_module("training.denoiser")
    with training.training_mode():
        torch.manual_seed(settings.seed)
        sources = make_sources(joined(options.data), clip, options.louder)
        latents = host_module("models.layers").latent_settings(model)
        seen = {"frames": clips.FRAMES, "fps": clips.FPS, "width": clips.SIZE, "height": clips.SIZE}
        hypernet = shape.create(targets, settings.seed, backbone="sd1", clip=seen, **latents)
        if options.init is not None:
            start_from(hypernet, core_module("model").Video2LoRA.load(options.init), options.anew)
        example = None
        if options.read_like is not None:
            example = core_module("model").Video2LoRA.load(options.read_like).requires_grad_(False)
        loop = core_module("training.trainer").Trainer(
            hypernet,
            training.HostDenoiser(model, targets),
            sources["train"],
            settings,
            evaluation={"unseen": sources["unseen"]},
            folder=options.out,
            processes=processes,
            example=example,
        )
        loop.resume(allowed=options.allow_change)
        result = loop.run()
    if processes.is_main and result.checkpoint is not None:
        shutil.copy(result.checkpoint / RESULT, options.out / RESULT)
    processes.finish()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=ROOT / "lab" / "training" / "hypernet.toml")
    dataset = ROOT / "lab" / "training" / "dataset.safetensors"
    parser.add_argument("--data", type=Path, nargs="+", default=[dataset], help="files of make_dataset.py")
    parser.add_argument("--models", type=Path, default=ROOT / "demo" / "models")
    parser.add_argument("--out", type=Path, default=ROOT / "lab" / "training" / "hypernet")
    parser.add_argument("--minutes", type=float, help="overrides max_minutes of the config")
    parser.add_argument("--seed", type=int, help="overrides the seed of the config")
    parser.add_argument("--init", type=Path, help="start from the weights of this hypernetwork")
    parser.add_argument(
        "--anew", nargs="*", default=[], metavar="PART", help="parts that start anew all the same"
    )
    parser.add_argument(
        "--read-like", type=Path, help="learn to read foreign references as this hypernetwork reads its own"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="overrides training settings"
    )
    parser.add_argument(
        "--shape", nargs="*", default=[], metavar="NAME=VALUE", help="overrides sizes of the hypernetwork"
    )
    parser.add_argument(
        "--louder",
        action="store_true",
        help="a guided teacher goes away from the louder of two things alone, not from what is only seen",
    )
    parser.add_argument(
        "--allow-change",
        nargs="*",
        default=[],
        metavar="NAME",
        help="settings a resumed run may have otherwise",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a process")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    from hosted.comfy_tools import start_host

    with tempfile.TemporaryDirectory() as base:
        start_host(Path(base))
        torch.set_num_threads(options.threads)
        train(options)


if __name__ == "__main__":
    main()
