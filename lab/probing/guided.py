"""What guidance adds, and what noise takes away: of the backbone told in words, and of predictions.

    cd lab && python -m probing.guided --words 1 1.5 2 --cfg 2
    cd lab && python -m probing.guided --words 1 --noises 1 6 --sets moves
    cd lab && python -m probing.guided --words 1 --between --sets moves heldout
    cd lab && python -m probing.guided --words 1 1.5 --louder --sets pairs heldout_pairs

--words: the prediction under a caption that says what happens against the one under a caption that says only
what is seen, the first so many times as far. --cfg: the LoRA predicted from the reference, against an empty
caption, as a KSampler has it. --noises: the first steps as the mean over so many noises. --between: told what
lies between words, as the teacher is (hosted/texts.py). --louder: guided words go away from a caption that
says the louder of two things alone. Of the evaluation's first references, scenes and noise; how many are
recognised, of pairs also in how many the quieter part is found, of moves the cosine of the velocities and the
ratio of the speeds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from hosted import comfy_tools
from judging.evaluation_sets import EFFECT_SETS, MOTION_SETS, Scene, draw_references, generator_of
from judging.foreign_sets import draw, families
from judging.judge import cosine, load_judge
from torch import Tensor
from world import clips, conditions

WHOLE = 64  # samples a set of the evaluation; the first are asked
SETS = ("moves", *EFFECT_SETS, "photographs_pan", "photographs_zoom")


def references_of(name: str, count: int, seed: int) -> tuple[clips.Semantics, Tensor]:
    """The first `count` references of a set of the evaluation, and what happens in them."""
    if name.startswith("photographs_"):
        kind, number = name.removeprefix("photographs_"), 72 + (name == "photographs_zoom")
        photographs = families(generator_of(seed, 60))[0][-1]
        semantics, video = draw(kind, photographs, WHOLE, generator_of(seed, number))
    elif name == "moves":
        semantics, video = draw_references(*MOTION_SETS["seen"], WHOLE, generator_of(seed, 100))
    else:
        number = 110 + list(EFFECT_SETS).index(name)
        semantics, video = draw_references(*EFFECT_SETS[name], WHOLE, generator_of(seed, number))
    return semantics.pick(slice(0, count)), video[:count]


def report(label: str, judge, video: Tensor, semantics: clips.Semantics, moves: bool) -> None:
    """Prints what the judge finds, with its standard error."""
    decided = judge.decide(video)
    if moves:
        velocity, wanted = decided["velocity"], semantics.velocity()
        ratio = velocity.norm(dim=-1) / wanted.norm(dim=-1)
        found = {"cosine": cosine(velocity, wanted), "speed ratio": ratio}
    else:
        right = (decided["happens"] == conditions.classes_of(semantics)).all(1)
        found = {"recognised": right.float()}
        if conditions.is_pair(semantics).all():
            quieter = conditions.classes_of(semantics) & ~conditions.classes_of(
                conditions.second_alone(semantics)
            )
            found["quieter part found"] = (decided["happens"] & quieter).any(1).float()
    values = (f"{name} {v.mean():.3f} ± {v.std() / len(v) ** 0.5:.3f}" for name, v in found.items())
    print(f"{label}: {', '.join(values)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--words", type=float, nargs="*", default=[], help="guidances of what words say")
    parser.add_argument("--cfg", type=float, nargs="*", default=[], help="of predictions; 1 is without")
    parser.add_argument("--between", action="store_true", help="words are blended to say it exactly")
    parser.add_argument("--louder", action="store_true", help="guided away from the louder of two things")
    parser.add_argument("--noises", type=int, nargs="+", default=[1], help="that first steps are a mean of")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--n", type=int, default=32, help="samples a set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, default=comfy_tools.MODELS)
    parser.add_argument("--hypernet", type=Path, help="the hypernetwork, when not in the models' folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="video2lora-guided-") as base:
        comfy_tools.start_host(Path(base))
        torch.set_num_threads(1)
        from hosted.demo_models import HYPERNET, DemoModels

        models = DemoModels(options.models, options.hypernet or options.models / HYPERNET)
        judge = load_judge()[0]
        for name in options.sets:
            semantics, video = references_of(name, options.n, options.seed)
            moves = name == "moves"
            scene = Scene.draw(WHOLE, generator_of(options.seed, 0 if moves else 1)).first(options.n)
            weights = models.predict(video) if options.cfg else None
            for noises in options.noises:
                label = name if noises == 1 else f"{name}, first steps of {noises} noises"
                for guidance in options.words:
                    say = scene.told_between if options.between else scene.told
                    told = say(semantics)
                    away_from = say(conditions.second_alone(semantics)) if options.louder else scene.prompts
                    against = {"against": away_from, "guidance": guidance}
                    made = models.sample(scene.noise, told, noises=noises, **against)
                    report(f"{label}, told in words, guidance {guidance}", judge, made, semantics, moves)
                for cfg in options.cfg:
                    against = {"against": [""] * options.n, "guidance": cfg}
                    made = models.sample(scene.noise, scene.prompts, weights, noises=noises, **against)
                    report(f"{label}, predicted, cfg {cfg}", judge, made, semantics, moves)


if __name__ == "__main__":
    main()
