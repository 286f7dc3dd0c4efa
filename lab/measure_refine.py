"""What refining is worth for kinds that the demo's hypernetwork never saw: flashes and rolls to the left.

    python lab/measure_refine.py --references 16 --scenes 2

Every reference is refined by itself, from its prediction and from nothing, and makes new videos of other
contents. Recognised: by the judge. Content kept: shape, colour and field as without a LoRA; beside it what
the backbone gets when it is told in words, since a flash hides shapes from the judge. CPU seconds are those
of one reference on one thread. Writes lab/refine.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import captions
import clips
import comfy_tools
import conditions
import torch
from comfy_tools import core_module, host_module, start_host
from evaluation_sets import Scene
from judge import ATTRIBUTES, JUDGE_FILE, load_judge
from torch import Tensor

SEED = 2_000_000
WINDOW = 5


class Bench:
    """References of held-out kinds, and scenes of other contents to make with them."""

    def __init__(self, models, judge, references: int, scenes: int) -> None:
        self.models, self.judge, self.scenes = models, judge, scenes
        generator = torch.Generator().manual_seed(SEED)
        kinds = ("flash", "roll")
        drawn = [
            conditions.draw_matching((kind,), references // 2, generator, conditions.is_held_out_kind)
            for kind in kinds
        ]
        self.semantics = clips.join(*drawn)
        self.wanted = conditions.class_of(self.semantics).repeat_interleave(scenes)
        content = clips.make_visible(clips.draw_content(len(self.semantics), generator), self.semantics)
        self.video = clips.render(content, self.semantics)
        self.prompts = [captions.content_caption(content, i) for i in range(len(self.semantics))]
        self.scene = Scene.draw(references * scenes, generator, patterned=True)
        self.bare = judge.decide(models.sample(self.scene.noise, self.scene.prompts))

    def refine(self, start: Tensor | None, settings) -> tuple[Tensor, Tensor, float]:
        """Refined vectors (R, N, D) from predictions or from nothing, losses (R, steps), CPU seconds each."""
        core = core_module("training.refine")
        with self.models.ready():
            latents, texts = self.models.vae.encode(self.video), self.models.encode_texts(self.prompts)
        found, losses, began = [], [], time.process_time()
        for index in range(len(self.video)):
            own = replace(settings, seed=index)
            origin = core.usual_start(self.models.hypernet, index) if start is None else start[index]
            with host_module("denoiser").training_mode():
                weights, curve = core.refine(
                    self.models.hypernet,
                    self.models.denoiser,
                    latents[index].clone(),
                    texts[index : index + 1].clone(),
                    origin,
                    own,
                )
            found.append(weights)
            losses.append(curve)
        seconds = (time.process_time() - began) / len(self.video)
        return torch.stack(found), torch.tensor(losses), seconds

    def told(self) -> dict:
        """Figures of videos whose prompts say in words what happens, without a LoRA."""
        repeated = torch.arange(len(self.semantics)).repeat_interleave(self.scenes)
        prompts = self.scene.told(self.semantics.pick(repeated))
        return self._figures(self.models.sample(self.scene.noise, prompts))

    def figures(self, weights: Tensor) -> dict:
        """Recognised and content kept, with standard errors over the videos."""
        repeated = weights.repeat_interleave(self.scenes, 0)
        return self._figures(self.models.sample(self.scene.noise, self.scene.prompts, repeated))

    def _figures(self, video: Tensor) -> dict:
        decided = self.judge.decide(video)
        right = (decided["semantics"] == self.wanted).float()
        kept = torch.stack([(decided[key] == self.bare[key]).float() for key in ATTRIBUTES]).mean(0)
        by_kind = {
            conditions.CLASSES[index]: round(float(right[self.wanted == index].mean()), 3)
            for index in self.wanted.unique().tolist()
        }
        return {
            **mean_and_error("recognised", right),
            **mean_and_error("content_kept", kept),
            "by_kind": by_kind,
        }


def mean_and_error(name: str, values: Tensor) -> dict[str, float]:
    """The mean of one value a video, and its standard error."""
    error = float(values.std() / len(values) ** 0.5)
    return {name: round(float(values.mean()), 3), f"{name}_standard_error": round(error, 3)}


def smoothed(losses: Tensor) -> Tensor:
    """Mean loss of all references (R, steps), averaged over WINDOW steps: (steps - WINDOW + 1,)."""
    return losses.mean(0).unfold(0, WINDOW, 1).mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--references", type=int, default=16)
    parser.add_argument("--scenes", type=int, default=2, help="videos made of each reference")
    parser.add_argument("--steps", type=int, help="from the prediction; by default those of the node")
    parser.add_argument("--from-nothing", type=int, default=0, help="steps from nothing; 0: not measured")
    parser.add_argument("--models", type=Path, default=comfy_tools.MODELS)
    parser.add_argument("--out", type=Path, default=comfy_tools.ROOT / "lab" / "refine.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="video2lora-refine-") as base:
        start_host(Path(base))
        torch.set_num_threads(1)
        from demo_models import DemoModels

        models = DemoModels(options.models)
        bench = Bench(models, load_judge(JUDGE_FILE)[0], options.references, options.scenes)
        settings = core_module("training.refine").RefineSettings()
        settings = replace(settings, steps=options.steps or settings.steps)
        predicted = models.predict(bench.video)
        result = {"references": options.references, "videos": options.references * options.scenes}
        result["told_in_words"] = bench.told()
        result["predicted"] = bench.figures(predicted)
        print(result, flush=True)
        refined, losses, seconds = bench.refine(predicted, settings)
        result["refined"] = bench.figures(refined) | {
            "steps": settings.steps,
            "cpu_seconds": round(seconds, 1),
        }
        print(result["refined"], flush=True)
        if options.from_nothing:
            longer = replace(settings, steps=options.from_nothing)
            nothing, slow, seconds = bench.refine(None, longer)
            result["from_nothing"] = bench.figures(nothing) | {
                "steps": longer.steps,
                "cpu_seconds": round(seconds, 1),
            }
            reached = smoothed(losses)
            late = (smoothed(slow) <= reached[-1]).nonzero()
            result["loss_reached"] = round(float(reached[-1]), 4)
            result["steps_to_it"] = {
                "from_prediction": int((reached <= reached[-1]).nonzero()[0]) + WINDOW,
                "from_nothing": int(late[0]) + WINDOW if len(late) else f"more than {longer.steps}",
            }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
