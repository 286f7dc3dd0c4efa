"""What README, model card and limits say of the shipped models is what `make eval` measured."""

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]

README = (
    "| velocity cosine | {cosine[seen]} | {cosine[heldout]} | {cosine_alone[no_lora]} "
    "| {cosine_alone[shuffled]} | {cosine_alone[prompted]} | 0 |",
    "| effect accuracy | {effects[seen]} | {effects[heldout]} | {effects_alone[no_lora]} "
    "| {effects_alone[shuffled]} | {effects_alone[prompted]} | {effects_alone[chance]} |",
    "(ratio {speed[seen]}, without a LoRA {speed[no_lora]}), the content is kept ({content})",
    "| pairs of training | {effects[pairs]} | {parts[pairs]} | {effects_alone[prompted_pairs]} "
    "| {effects_alone[pairs_real_clips]} |",
    "| pairs held out | {effects[heldout_pairs]} | {parts[heldout_pairs]} "
    "| {effects_alone[prompted_heldout_pairs]} | {effects_alone[heldout_pairs_real_clips]} |",
    "| kinds held out (flashes, rolls to the left) | {effects[heldout_kinds]} | "
    "| {effects_alone[prompted_heldout_kinds]} | {effects_alone[heldout_kinds_real_clips]} |",
    "over a flat colour | velocity cosine | {cosine[open_flat]}, speed ratio {speed[open_flat]} |",
    "over photographs | velocity cosine | {cosine[open_over_pictures]}, speed ratio "
    "{speed[open_over_pictures]} |",
    "panned | recognised | {effects[open_pan]} (of perfect clips {effects_alone[open_pan_drawn]}) |",
    "zoomed | recognised | {effects[open_zoom]} (of perfect clips {effects_alone[open_zoom_drawn]}) |",
    "photographs zoomed it reads in {effects_alone[open_zoom]} of the cases, panned in "
    "{effects_alone[open_pan]}",
)
CARD = (
    "moves: velocity cosine {cosine[seen]}, held-out directions {cosine[heldout]}, held-out speeds "
    "{cosine[heldout_speeds]}, speed ratio {speed[seen]}, {speed[heldout]} and {speed[heldout_speeds]}; "
    "without a LoRA {cosine_alone[no_lora]}, with another reference's {cosine_alone[shuffled]}, told in "
    "words {cosine_alone[prompted]}.",
    "Effects recognised: {effects[seen]}, held-out directions and hues {effects[heldout]}; pairs "
    "{effects[pairs]} ({parts[pairs]} of their parts; told in words {effects_alone[prompted_pairs]}), "
    "held-out pairs {effects[heldout_pairs]} ({parts[heldout_pairs]}; told in words "
    "{effects_alone[prompted_heldout_pairs]}), held-out kinds {effects[heldout_kinds]}; chance "
    "{effects_alone[chance]}. Character and scene kept: {content}.",
    "moves over a flat colour {cosine[open_flat]}, over photographs {cosine[open_over_pictures]}, "
    "photographs panned {effects[open_pan]} (perfect clips {effects_alone[open_pan_drawn]}), zoomed "
    "{effects[open_zoom]} ({effects_alone[open_zoom_drawn]}).",
    "velocity cosine {cosine[prompted]} with a speed ratio of {speed[prompted]}, effects recognised in "
    "{effects[prompted]}, flashes and rolls to the left in {effects[prompted_heldout_kinds]}, two things at "
    "once in {effects[prompted_pairs]} and {effects[prompted_heldout_pairs]}",
)
LIMITS = (
    "velocity cosine {cosine[heldout]} for directions it never saw, {cosine[open_over_pictures]} for moves "
    "over photographs.",
    "recognised in {effects_alone[heldout_kinds]} of the cases (chance {effects_alone[chance]}) and two "
    "things that training never had together in {effects_alone[heldout_pairs]} (one of them is found "
    "oftener: {parts[heldout_pairs]} of the parts), photographs panned in {effects_alone[open_pan]}",
)
SENTENCES = {"README.md": README, "demo/models/README.md": CARD, "docs/limits.md": LIMITS}


@pytest.fixture(scope="module")
def figures() -> dict:
    """The published evaluation in the words of the documents: with its standard error, or alone."""
    published = json.loads((CHECKOUT / "lab" / "results" / "eval.json").read_text())
    named = defaultdict(dict, content=f"{published['content_kept']:.2f}")
    for name, measure in (("cosine", "velocity_cosine"), ("effects", "effect_accuracy")):
        errors = published[f"{measure}_standard_error"]
        for key, value in published[measure].items():
            named[f"{name}_alone"][key] = f"{value:.2f}"
            named[name][key] = f"{value:.2f} ± {errors.get(key, 0):.2f}"
    for name, measure in (("speed", "speed_ratio"), ("parts", "parts_found")):
        named[name] = {key: f"{value:.2f}" for key, value in published[measure].items()}
    return named


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("document", SENTENCES)
def test_the_figures_of_the_documents_are_those_of_the_evaluation(document, figures):
    text = one_line((CHECKOUT / document).read_text(encoding="utf-8"))
    missing = [
        s for sentence in SENTENCES[document] if (s := one_line(sentence.format(**figures))) not in text
    ]
    assert not missing, f"{document} says otherwise than lab/results/eval.json; by that it says: {missing}"
