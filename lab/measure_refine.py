"""What refining is worth: for kinds that the demo's hypernetwork never saw, for kinds that it did, and for
looks that it never saw.

    python lab/measure_refine.py --references 8 --scenes 4

Every reference is refined by itself and makes new videos of other contents. Three sets: flashes and rolls to
the left, which were held out; effects of training; and moves and zooms of photographs and emoji, whose looks
were held out. Recognised: by the judge. Content kept: character and scene as without a LoRA; beside it
what the backbone makes when it is told in words, since a flash hides things from the judge. Losses: the
diffusion loss of each reference at the same 16 noise levels each time. From nothing as the node does it, with
matrices from a seed. CPU seconds are those of one reference on one thread.

Writes lab/results/refine.json after every measurement, and goes on from it: delete it to measure all again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from hosted import comfy_tools
from hosted.comfy_tools import core_module, host_module, start_host
from judging import foreign_sets
from judging.evaluation_sets import EFFECT_SETS, Scene
from judging.judge import ATTRIBUTES, JUDGE_FILE, load_judge
from torch import Tensor
from world import captions, clips, conditions, contents

SEED = 2_000_000
DRAWS = 16
SETS = ("held_out_kinds", "kinds_of_training", "unseen_looks")


class Bench:
    """References of one set, and scenes of other contents to make with them."""

    def __init__(self, models, judge, name: str, references: int, scenes: int, seed: int = SEED) -> None:
        self.models, self.judge, self.scenes = models, judge, scenes
        generator = torch.Generator().manual_seed(seed)
        if name != "unseen_looks":
            kinds, accept = EFFECT_SETS["heldout_kinds" if name == "held_out_kinds" else "seen"]
            each = -(-references // len(kinds))
            drawn = [conditions.draw_matching((kind,), each, generator, accept) for kind in kinds]
            self.semantics = clips.join(*drawn)
            references = len(self.semantics)
            content = contents.draw_content(references, generator)
            self.video = contents.render(content, self.semantics)
            self.prompts = [captions.content_caption(content, i) for i in range(references)]
        else:
            found, _ = foreign_sets.families(generator)
            drawn = [
                foreign_sets.draw(kind, found[-1], references // 2, generator)
                for kind in ("over_pictures", "zoom")
            ]
            self.semantics = clips.join(*(semantics for semantics, _ in drawn))
            self.video = torch.cat([video for _, video in drawn])
            self.prompts = [""] * references
        self.wanted = conditions.classes_of(self.semantics).repeat_interleave(scenes, 0)
        self.scene = Scene.draw(references * scenes, generator)
        self.bare = judge.decide(models.sample(self.scene.noise, self.scene.prompts))
        with models.ready():
            self.latents, self.texts = models.vae.encode(self.video), models.encode_texts(self.prompts)

    def refine(self, model, start: Tensor | None, settings) -> tuple[Tensor, float]:
        """Vectors (R, N, D) refined from `start` (R, N, D) or from nothing, and the CPU seconds of each."""
        core, found, began = core_module("training.refine"), [], time.process_time()
        for index, (latents, text) in enumerate(zip(self.latents, self.texts, strict=True)):
            origin = core.usual_start(model, index) if start is None else start[index]
            with host_module("training.denoiser").training_mode():
                weights, _ = core.refine(
                    model,
                    self.models.denoiser,
                    latents.clone(),
                    text[None].clone(),
                    origin,
                    replace(settings, seed=index),
                )
            found.append(weights)
        return torch.stack(found), round((time.process_time() - began) / len(found), 1)

    def losses(self, model, weights: Tensor) -> list[float]:
        """The diffusion loss of every reference with its own vectors."""
        denoiser, branches = self.models.denoiser, self.models.branches
        generator = torch.Generator().manual_seed(SEED)
        noise = torch.randn(DRAWS, *self.latents.shape[1:], generator=generator)
        steps = ((torch.arange(DRAWS) + 0.5) / DRAWS * denoiser.num_timesteps).long()
        losses = []
        with self.models.ready():
            for latents, text, own in zip(self.latents, self.texts, weights, strict=True):
                clean, words = latents.expand_as(noise), text.expand(DRAWS, -1, -1)
                factors = model.batched_factors(own.expand(DRAWS, -1, -1))
                with branches.attached(factors):
                    found = denoiser.forward(denoiser.add_noise(clean, noise, steps), steps, words)
                losses.append(float((found - denoiser.target(clean, noise, steps)).square().mean()))
        return losses

    def told(self) -> dict:
        """Figures of videos whose prompts say in words what happens, without a LoRA."""
        repeated = torch.arange(len(self.semantics)).repeat_interleave(self.scenes)
        prompts = self.scene.told(self.semantics.pick(repeated))
        return self._figures(self.models.sample(self.scene.noise, prompts))

    def figures(self, model, weights: Tensor) -> dict:
        """Loss, recognised and content kept, with standard errors over the references and the videos."""
        repeated = weights.repeat_interleave(self.scenes, 0)
        video = self.models.sample(self.scene.noise, self.scene.prompts, repeated, matrices=model)
        losses = self.losses(model, weights)
        return {
            **mean_and_error("loss", torch.tensor(losses)),
            "losses": [round(loss, 4) for loss in losses],
            **self._figures(video),
        }

    def _figures(self, video: Tensor) -> dict:
        decided = self.judge.decide(video)
        right = (decided["happens"] == self.wanted).all(1).float()
        kept = torch.stack([(decided[key] == self.bare[key]).float() for key in ATTRIBUTES]).mean(0)
        by_kind = {
            conditions.CLASSES[index]: [
                round(float(values[self.wanted[:, index]].mean()), 3) for values in (right, kept)
            ]
            for index in self.wanted.any(0).nonzero()[:, 0].tolist()
        }
        return {
            **mean_and_error("recognised", right),
            **mean_and_error("content_kept", kept),
            "recognised_and_kept_by_kind": by_kind,
        }


def mean_and_error(name: str, values: Tensor) -> dict[str, float]:
    """The mean of the values and its standard error."""
    error = float(values.std() / len(values) ** 0.5)
    return {name: round(float(values.mean()), 3), f"{name}_standard_error": round(error, 3)}


def seeded(models):
    """What the node expands from when it is given no LoRA: matrices from a seed."""
    made = host_module("training.refine").seeded_matrices(models.patcher, 0)
    made.batched_factors = lambda weights: made.auxiliary.expand(weights, made.config.alpha)
    return made


def measurements(bench: Bench, settings, model):
    """Name and figures, one after another; each is a function so that it can be left out."""
    own, predicted = bench.models.hypernet, bench.models.predict(bench.video)

    def refined(expander, start, steps):
        weights, seconds = bench.refine(expander, start, replace(settings, steps=steps))
        return {"steps": steps, "cpu_seconds": seconds} | bench.figures(expander, weights)

    full, third = settings.steps, settings.steps // 3
    yield "refined", lambda: refined(own, predicted, full)
    yield "from_nothing", lambda: refined(model, None, full)
    yield "refined_a_third", lambda: refined(own, predicted, third)
    yield "predicted", lambda: bench.figures(own, predicted)
    yield "told_in_words", bench.told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--references", type=int, default=8)
    parser.add_argument("--scenes", type=int, default=4, help="videos made of each reference")
    parser.add_argument("--steps", type=int, help="by default those of the node")
    parser.add_argument("--models", type=Path, default=comfy_tools.MODELS)
    parser.add_argument("--out", type=Path, default=comfy_tools.ROOT / "lab" / "results" / "refine.json")
    options = parser.parse_args()
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory(prefix="video2lora-refine-") as base:
        start_host(Path(base))
        torch.set_num_threads(1)
        from hosted.demo_models import DemoModels

        models = DemoModels(options.models)
        settings = core_module("training.refine").RefineSettings()
        settings = replace(settings, steps=options.steps or settings.steps)
        judge, model = load_judge(JUDGE_FILE)[0], seeded(models)
        for name in SETS:
            own = found.setdefault(name, {"references": options.references, "scenes": options.scenes})
            bench = Bench(models, judge, name, own["references"], own["scenes"])
            for measured, measure in measurements(bench, settings, model):
                if measured not in own:
                    own[measured] = measure()
                    options.out.write_text(json.dumps(found, indent=1) + "\n")
                    print(name, measured, own[measured], flush=True)


if __name__ == "__main__":
    main()
