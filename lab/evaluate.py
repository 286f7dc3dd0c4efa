"""Measures what the shipped models transfer from a reference, on clips, contents and seeds never trained on.

    python lab/evaluate.py --seed 0          (or: make eval SEED=0)

Prompts say what is seen and no word of what happens. Writes lab/results/eval.json and lab/results/eval.png.
With --keep, a run that was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from hosted import comfy_tools
from hosted.comfy_tools import start_host
from judging.evaluation_sets import EFFECT_SETS, MOTION_SETS, References, Scene, draw_references, generator_of
from judging.footage import read_window
from judging.foreign_sets import SETS, draw, families
from judging.judge import ATTRIBUTES, JUDGE_FILE, accuracy, cosine, load_judge, truth
from judging.kept_samples import KeptSamples
from judging.report import Report, summarise
from torch import Tensor
from world import captions, clips, conditions, contents

TOLD = ("seen", "heldout", "heldout_kinds", "pairs", "heldout_pairs")  # sets that are also told in words
STRENGTHS = (0.0, 0.5, 1.0, 1.5)
FEW, CURVE_SAMPLES = 32, 16  # samples of other worlds and of what is told in words; of a strength


class Evaluation:
    """One evaluation: `run` fills `report`; `examples` keeps clips for the page of pictures."""

    def __init__(self, models, judge, count: int, seed: int) -> None:
        self.models, self.judge, self.count = models, judge, count
        self.report = Report()
        self.examples: list[tuple[str, Tensor, Tensor, Tensor]] = []
        self._seed = seed
        self._scenes: dict[str, tuple[Scene, Tensor]] = {}
        self._started = time.monotonic()

    def run(self, quick: bool) -> None:
        """All measurements, or only moves with their controls, effects and pairs, seen and held out."""
        moving, without = self._scene("moves")
        references, videos = {}, {}
        for number, (name, (kinds, accept)) in enumerate(MOTION_SETS.items()):
            if quick and name == "heldout_speeds":
                continue
            references[name] = self._references(kinds, accept, number)
            videos[name] = self._sample(f"moves, {name}", moving, references[name].weights)
            self._judge_motion(name, videos[name], without, moving, references[name])
        self._motion_controls(moving, without, references["seen"])
        self._effects(quick)
        if quick:
            return
        self.foreign(all_families=False)
        self._strength_curve(moving, without, videos["seen"], references["seen"])
        semantics, scene = references["seen"].semantics.pick(slice(0, FEW)), moving.first(FEW)
        told = self._sample("moves, told in words", scene, prompts=scene.told(semantics))
        self._add_velocity("prompted", self._velocity(told), semantics.velocity())

    def foreign(self, all_families: bool) -> None:
        """References in looks that nothing was trained on: how well moves are followed, and what else is
        recognised; of that, also how much is in perfect clips and told in words.  Without `all_families`
        FEW with photographs alone, where they are installed."""
        scenes = [self._scene(name) for name in ("moves", "effects")]
        found, missing = families(self._generator(60))
        for sentence in missing:
            print(sentence, flush=True)
        few = self.count if all_families else FEW
        for family in found if all_families else found[-1:]:
            for number, (name, kinds) in enumerate(SETS.items()):
                label, moves = f"{family.name}_{name}", kinds == ("move",)
                semantics, reference = draw(name, family, self.count, self._generator(70 + number))
                semantics, reference = semantics.pick(slice(0, few)), reference[:few]
                references = References(semantics, reference, self.models.predict(reference))
                scene, without = scenes[not moves][0].first(few), scenes[not moves][1]
                video = self._sample(f"foreign, {label}", scene, references.weights)
                if moves:
                    self._add_velocity(label, self._velocity(video), semantics.velocity())
                else:
                    self._add_effects(label, video, semantics)
                    self._add_effects(f"{label}_drawn", contents.render(scene.content, semantics), semantics)
                    told = self._sample(f"{label}, told in words", scene, prompts=scene.told(semantics))
                    self._add_effects(f"prompted_{label}", told, semantics)
                self._keep_examples(f"foreign, {label}", video, without, references, 2)

    def show(self, label: str, reference: Tensor) -> None:
        """Keeps an example of a reference (1, 3, F, H, W) of which nobody says what happens in it."""
        scene, without = self._scene("moves")
        scene = scene.first(1)
        video = self.models.sample(scene.noise, scene.prompts, self.models.predict(reference))
        self.examples.append((label, reference[0], without[0], video[0]))

    def _scene(self, name: str) -> tuple[Scene, Tensor]:
        """The contents that sets are generated with, and their clips without a LoRA."""
        if name not in self._scenes:
            scene = Scene.draw(self.count, self._generator(len(self._scenes)))
            self._scenes[name] = scene, self._sample(f"{name}, no LoRA", scene)
        return self._scenes[name]

    def _effects(self, quick: bool) -> None:
        (scene, without), sets = self._scene("effects"), {}
        for number, (name, (kinds, accept)) in enumerate(EFFECT_SETS.items()):
            if quick and name == "heldout_kinds":
                continue
            references = sets[name] = self._references(kinds, accept, 10 + number)
            video = self._sample(f"effects, {name}", scene, references.weights)
            self._add_effects(name, video, references.semantics)
            self._add_effects(f"{name}_real_clips", references.video, references.semantics)
            self._keep_examples(f"effect, {name}", video, without, references, 6 if name == "seen" else 3)
        if quick:
            return
        seen = sets["seen"]
        self._add_effects("no_lora", without, seen.semantics)
        shuffled = self._sample("effects, shuffled", scene, seen.weights.roll(self.count // 2, 0))
        self._add_effects("shuffled", shuffled, seen.semantics)
        scene = scene.first(FEW)
        for name in TOLD:
            semantics = sets[name].semantics.pick(slice(0, FEW))
            told = self._sample(f"effects, {name}, told in words", scene, prompts=scene.told(semantics))
            self._add_effects("prompted" if name == "seen" else f"prompted_{name}", told, semantics)
        self._judge_real_clips()

    def _generator(self, number: int) -> torch.Generator:
        return generator_of(self._seed, number)

    def _references(self, kinds, accept, number: int) -> References:
        semantics, video = draw_references(kinds, accept, self.count, self._generator(100 + number))
        return References(semantics, video, self.models.predict(video))

    def _sample(
        self,
        label: str,
        scene: Scene,
        weights: Tensor | None = None,
        strength: float = 1.0,
        prompts: list[str] | None = None,
    ) -> Tensor:
        started = time.monotonic()
        video = self.models.sample(scene.noise, prompts or scene.prompts, weights, strength)
        now = time.monotonic()
        print(
            f"{now - self._started:6.0f} s  {label}: {len(video)} clips in {now - started:.0f} s", flush=True
        )
        return video

    def _velocity(self, video: Tensor) -> Tensor:
        """(B, 2) of the characters in these clips, as the judge sees it."""
        return self.judge.decide(video)["velocity"]

    def _add_velocity(self, name: str, velocity: Tensor, wanted: Tensor) -> None:
        self.report.add("velocity_cosine", name, cosine(velocity, wanted))
        self.report.add("speed_ratio", name, velocity.norm(dim=-1) / wanted.norm(dim=-1))

    def _judge_motion(
        self, name: str, video: Tensor, without: Tensor, scene: Scene, references: References
    ) -> None:
        self._add_velocity(name, self._velocity(video), references.semantics.velocity())
        self._keep_examples(f"move, {name}", video, without, references, 2)
        with_lora, bare = self.judge.decide(video), self.judge.decide(without)
        kept = torch.stack([(with_lora[key] == bare[key]).float() for key in ATTRIBUTES])
        self.report.add("content_kept", name, kept.mean(0))
        for key, values in zip(ATTRIBUTES, kept, strict=True):
            self.report.add("attribute_kept", f"{name}_{key}", values)

    def _motion_controls(self, scene: Scene, without: Tensor, seen: References) -> None:
        """Against all references but the one used: an average over many pairs instead of one pairing."""
        wanted = seen.semantics.velocity()
        half = self.count // 2
        shuffled = self._sample("moves, shuffled", scene, seen.weights.roll(half, 0))
        for name, video, used in (("no_lora", without, None), ("shuffled", shuffled, half)):
            velocity = self._velocity(video)
            pairs = cosine(velocity[:, None], wanted[None])
            others = torch.ones_like(pairs)
            if used is not None:
                others -= torch.eye(len(pairs)).roll(used, 0)
            self.report.add("velocity_cosine", name, (pairs * others).sum(1) / others.sum(1))
            ratio = velocity.norm(dim=-1) / wanted.roll(used or 0, 0).norm(dim=-1)
            self.report.add("speed_ratio", name, ratio)

    def _strength_curve(self, scene: Scene, without: Tensor, full: Tensor, seen: References) -> None:
        """Velocities by strength, and whether strength 0 is no LoRA at all, bit for bit."""
        few = min(self.count, CURVE_SAMPLES)
        scene, wanted = scene.first(few), seen.semantics.velocity()[:few]
        for strength in STRENGTHS:
            video = full[:few]  # those of strength 1
            if strength != 1:
                video = self._sample(f"moves, strength {strength}", scene, seen.weights[:few], strength)
            velocity = self._velocity(video)
            self.report.add("strength_velocity_cosine", str(strength), cosine(velocity, wanted))
            self.report.add(
                "strength_speed_ratio", str(strength), velocity.norm(dim=-1) / wanted.norm(dim=-1)
            )
            if strength == 0:
                self.report.figures["zeroed_lora"] = {"equals_no_lora": torch.equal(video, without[:few])}

    def _add_effects(self, name: str, video: Tensor, semantics: clips.Semantics) -> None:
        true = conditions.classes_of(semantics)
        named = self.judge.decide(video)["happens"]
        right = (named == true).all(1).float()
        self.report.add("effect_accuracy", name, right)
        # Of two things that happen, one may be there: whatever else is named, how many of them are.
        self.report.add("parts_found", name, (named & true).sum(1) / true.sum(1).clamp(min=1))
        by_class = {
            conditions.CLASSES[index]: round(float(right[true[:, index]].mean()), 3)
            for index in true.any(0).nonzero()[:, 0].tolist()
        }
        self.report.figures.setdefault("effect_accuracy_by_class", {})[name] = by_class

    def _judge_real_clips(self) -> None:
        generator = self._generator(50)
        semantics = conditions.draw_classes(8 * len(conditions.CLASSES), generator)
        content = contents.draw_content(len(semantics), generator)
        video, true = contents.render(content, semantics), truth(content, semantics)
        decided = self.judge.decide(video)
        right = (decided["happens"] == true["happens"]).all(1)
        self.report.add("effect_accuracy", "real_clips", right.float())
        decoded = self.models.vae.decode(self.models.vae.encode(video))
        self.report.figures["judge_on_real_clips"] = {
            "rendered": accuracy(decided, true),
            "through_vae": accuracy(self.judge.decide(decoded), true),
        }

    def _keep_examples(
        self, label: str, video: Tensor, without: Tensor, references: References, count: int
    ) -> None:
        """The first of each different class, up to `count`."""
        classes = conditions.classes_of(references.semantics).tolist()
        first = {tuple(value): index for index, value in reversed(list(enumerate(classes)))}
        chosen = sorted(first.values())[:count]
        chosen += [i for i in range(len(classes)) if i not in chosen][: count - len(chosen)]
        for i in chosen:
            happens = captions.semantics_label(references.semantics, i)
            self.examples.append((f"{label}: {happens}", references.video[i], without[i], video[i]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of references, contents and noise")
    parser.add_argument("--n", type=int, default=64, help="samples a set")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--quick", action="store_true", help="moves, effects, pairs, in eval_quick.json")
    parser.add_argument("--foreign", action="store_true", help="all foreign sets alone, in eval_foreign.json")
    parser.add_argument("--keep", type=Path, help="folder to keep samples in, for a run that is cut short")
    parser.add_argument(
        "--footage", nargs="*", default=[], metavar="FILE@SECONDS", help="films to show on the page as well"
    )
    parser.add_argument("--models", type=Path, default=comfy_tools.MODELS)
    parser.add_argument("--hypernet", type=Path, help="the hypernetwork, when not in the models' folder")
    parser.add_argument("--judge", type=Path, default=JUDGE_FILE)
    parser.add_argument(
        "--out",
        type=Path,
        default=comfy_tools.ROOT / "lab" / "results",
        help="folder for eval.json, eval.png",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="video2lora-eval-") as base:
        start_host(Path(base))
        torch.set_num_threads(options.threads)
        from hosted.demo_models import BACKBONE, HYPERNET, MOTION, DemoModels

        judge = load_judge(options.judge)[0]
        started = time.monotonic()
        hypernet = options.hypernet or options.models / HYPERNET
        files = (options.models / BACKBONE, options.models / MOTION)
        models = DemoModels(options.models, hypernet)
        if options.keep is not None:
            models = KeptSamples(models, options.keep, files, hypernet)
        evaluation = Evaluation(models, judge, options.n, options.seed)
        if options.foreign:
            evaluation.foreign(all_families=True)
        else:
            evaluation.run(options.quick)
        for film in options.footage:
            evaluation.show(*read_window(film))
    weights = (*files, hypernet, options.judge)
    figures = summarise(evaluation.report.figures, options.seed, options.n, weights)
    figures["minutes"] = round((time.monotonic() - started) / 60, 1)
    options.out.mkdir(parents=True, exist_ok=True)
    name = "eval_quick" if options.quick else "eval_foreign" if options.foreign else "eval"
    (options.out / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    from judging.eval_page import draw_page

    draw_page(evaluation.examples, options.out / f"{name}.png")
    print(f"{options.out / name}.json and .png written in {figures['minutes']} minutes")


if __name__ == "__main__":
    main()
