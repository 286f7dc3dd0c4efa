"""Random sequences of what people do with MODELs: nothing of ours is left where it does not belong.

`SEQUENCES=1000` runs more of them (`make soak`); a failure names the seed and the steps that led to it.
"""

import os
import random

import pytest
import torch
from safetensors.torch import save_file

from .models.backbones import motion_state_dict, save_checkpoint
from .models.sampling import encoded, ksampler
from .models.small_hypernets import make_hypernet
from .patching.loaded import assert_patched, loaded_weights

SEQUENCES = int(os.environ.get("SEQUENCES", "100"))
STEPS = 6
BLOCK = 10
ALLOWED_GROWTH = 5 * 2**20
WALKED = "unet.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"


@pytest.fixture(scope="module")
def world(host, tmp_path_factory):
    """A base MODEL, what can be done with it, and what has to stay as it is."""
    return World(host, tmp_path_factory.mktemp("sequences"))


class World:
    """One base MODEL and a growing list of MODELs made of it by random steps."""

    def __init__(self, host, folder):
        import comfy.model_management

        self.host, self.management = host, comfy.model_management
        self.patching = host.module("nodes.host.patches.patching")
        self.list_targets = host.module("nodes.host.models.layers").list_targets
        self.hooks, self.guidance, self.schedule = (
            host.module(f"nodes.host.patches.{name}") for name in ("hooks", "guidance", "schedule")
        )
        load = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint
        self.root, clip, _ = load(save_checkpoint(folder / "tiny.safetensors"))
        self.other, _, _ = load(save_checkpoint(folder / "other.safetensors", seed=7))
        self.prompt = encoded(host, clip)
        self.motions = [motion_state_dict(seed=seed) for seed in (3, 9)]
        moving = self.patching.attach_animatediff(self.root, self.motions[0])
        self.loras = []
        for seed in (1, 2):
            model = make_hypernet(host.core, self.list_targets(moving), seed=seed)
            reference = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(seed))
            self.loras += model.predict(reference)
        (host.models / "loras").mkdir(parents=True, exist_ok=True)
        halves = {"lora_up.weight": torch.ones(32, 1), "lora_down.weight": torch.full((1, 32), 0.01)}
        layer = WALKED.replace("unet.", "diffusion_model.").removesuffix("weight")
        save_file({layer + k: v for k, v in halves.items()}, host.models / "loras" / "walk.safetensors")
        self.weights = {key: value.clone() for key, value in self.root.model.state_dict().items()}
        self.first = self.sample(self.root)
        self.resident = []

    @torch.inference_mode()
    def sample(self, model, hooks=None):
        prompt = self.prompt
        if hooks is not None:
            from comfy_extras.nodes_hooks import ConditioningSetProperties

            prompt = ConditioningSetProperties().set_properties(prompt, 1.0, "default", hooks=hooks)[0]
        return ksampler(self.host, model, prompt, frames=2, steps=1)

    def walk(self, seed):
        """Take random steps; returns their names."""
        draw = random.Random(seed)
        attached = self.patching.attach_animatediff(self.root, self.motions[0])
        # Each MODEL with its motion module, the LoRAs applied to it, and how often *Load LoRA* was.
        models, taken = [(self.root, None, (), 0), (attached, 0, (), 0)], []
        steps = (
            "attach", "apply", "beside", "schedule", "interpolate", "blend", "guide", "clone", "load LoRA",
            "list", "sample", "sample a batch", "sample hooked", "sample the base", "sample another",
            "weights", "unload", "forget",
        )  # fmt: skip
        for _ in range(STEPS):
            name, index = draw.choice(steps), draw.randrange(len(models))
            taken.append(f"{name} {index}")
            model, motion, applied, walked = models[index]
            if name == "attach":
                motion = draw.randrange(2)
                made = self.patching.attach_animatediff(model, self.motions[motion])
                models.append((made, motion, applied, walked))
            elif name == "apply":
                lora, spatial, temporal = draw.choice(self.loras), *draw.choices((1.0, 0.7, -1.3), k=2)
                made, _ = self.patching.apply_adaptive_lora(model, lora, spatial, temporal)
                models.append((made, motion, (*applied, (lora, spatial, temporal)), walked))
            elif name in ("beside", "schedule"):
                how = {"schedule": self.any_schedule(draw)} if name == "schedule" else {"mode": "beside"}
                lora = draw.choice(self.loras)
                made, _ = self.patching.apply_adaptive_lora(model, lora, 1.0, 0.7, **how)
                # A schedule that is always on is none: the LoRA is merged.
                merged = ((lora, 1.0, 0.7),) if how.get("schedule") == self.schedule.ALWAYS else ()
                models.append((made, motion, applied + merged, walked))
            elif name == "interpolate":
                share = self.schedule.read_frame_curve("0, 1")
                made, _ = self.patching.interpolate_adaptive_loras(model, tuple(self.loras), share)
                models.append((made, motion, applied, walked))
            elif name == "blend":
                own = draw.choice(self.loras)
                lora = self.host.core.blend([(own, 0.7), (own, -1.2)], draw.choice(("expanded", "predicted")))
                made, _ = self.patching.apply_adaptive_lora(model, lora)
                models.append((made, motion, (*applied, (lora, 1.0, 1.0)), walked))
            elif name == "guide":
                guidance = self.guidance.ReferenceGuidance(draw.choice(self.loras), 2.0, 1.0, 0.0)
                models.append((self.guidance.add_guidance(model, guidance), motion, applied, walked))
            elif name == "sample hooked":
                self.sample_hooked(model, draw)
            elif name == "sample a batch":
                made, _ = self.patching.apply_adaptive_lora(model, self.loras)
                self.sample_if_complete(made)
            elif name == "clone":
                models.append((model.clone(), motion, applied, walked))
            elif name == "load LoRA":
                inputs = {"lora_name": "walk.safetensors", "strength_model": 1.0}
                made = self.host.run_node("LoraLoaderModelOnly", model=model, **inputs)[0]
                models.append((made, motion, applied, walked + 1))
            elif name == "list":
                self.list_targets(model)
            elif name == "sample":
                self.sample_if_complete(model)
            elif name == "weights":
                self.assert_weights(*models[index])
            elif name == "unload":
                self.management.unload_all_models()
            elif name == "forget" and len(models) > 2:
                models.pop()
            elif name.startswith("sample "):
                self.sample(self.root if name == "sample the base" else self.other)
        return taken

    def any_schedule(self, draw):
        frames = self.schedule.read_frame_curve(draw.choice(["", "0, 1", "0: 1, 1: -1"]))
        return self.schedule.Schedule(draw.choice([0.0, 0.2]), draw.choice([0.6, 1.0]), frames)

    def sample_hooked(self, model, draw):
        """Sample with a LoRA on the conditioning; without a motion module it is refused, which is right."""
        hooks = self.hooks.make_hooks(draw.choice(self.loras), 1.0, 1.0, schedule=self.any_schedule(draw))
        try:
            self.sample(model, hooks)
            assert model.additional_models
        except self.host.module("video2lora_core.errors").Video2LoRAError:
            assert not model.additional_models

    def assert_weights(self, model, motion, applied, walked):
        """Loaded, every weight is W + s B A of all that was applied, to 1e-6."""
        originals = {
            key.replace("diffusion_model.", "unet.", 1): value
            for key, value in self.weights.items()
            if key.startswith("diffusion_model.")
        }
        originals[WALKED] = originals[WALKED] + walked * 0.01
        if motion is not None:
            originals |= {f"motion.{key}": value for key, value in self.motions[motion].items()}
        assert_patched(loaded_weights(model), originals, *applied)

    def sample_if_complete(self, model):
        """Sample a MODEL; one with a LoRA that waits for its motion module is refused, which is right."""
        waits = self.patching.waiting_patches(model) and not model.additional_models
        try:
            self.sample(model)
            assert not waits
        except self.host.module("video2lora_core.errors").Video2LoRAError:
            assert waits


def resident_bytes():
    """What the process holds in memory now (Linux)."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("first", range(0, SEQUENCES, BLOCK))
def test_the_base_model_is_as_it_was_after_any_sequence(world, first):
    for seed in range(first, first + BLOCK):
        steps = world.walk(seed)
        assert torch.equal(world.sample(world.root), world.first), (seed, steps)
        assert world.root.model.state_dict().keys() == world.weights.keys(), (seed, steps)
        world.management.unload_all_models()
        state = world.root.model.state_dict()
        wrong = [key for key, value in world.weights.items() if not torch.equal(state[key], value)]
        assert not wrong, (seed, steps, wrong[:3])
        parts = world.root.model.named_modules()
        hooked = [name for name, part in parts if part._forward_hooks or part._forward_pre_hooks]
        assert not hooked and not world.root.hook_patches, (seed, steps, hooked)
        assert not any(world.root.callbacks.values()) and not any(world.root.injections.values()), steps
    world.resident.append(resident_bytes())


def test_memory_does_not_grow(world):
    """From a tenth of the sequences on, when caches are warm, to the last."""
    if len(world.resident) < 50:
        pytest.skip("memory is measured over 500 sequences and more: make soak")
    megabytes = [round(value / 2**20, 1) for value in world.resident]
    print(f"resident after every {BLOCK} sequences, in MB: {megabytes}")
    settled = world.resident[len(world.resident) // 10 :]
    assert settled[-1] - settled[0] < ALLOWED_GROWTH, megabytes


def test_a_clone_taken_while_its_origin_is_loaded_leaves_nothing_in_the_base(world):
    one = world.patching.attach_animatediff(world.root, world.motions[0])
    moving = world.sample(one)
    middle = one.clone()
    assert torch.equal(world.sample(world.root), world.first)
    world.list_targets(middle)
    patched, _ = world.patching.apply_adaptive_lora(middle, world.loras[0])
    world.patching.attach_animatediff(middle, world.motions[1])
    assert torch.equal(world.sample(world.root), world.first)
    assert torch.equal(world.sample(middle), moving)
    assert world.sample(patched).isfinite().all()
