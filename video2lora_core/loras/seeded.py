"""Shared matrices that come from a seed: an adaptive LoRA of a model that has no hypernetwork.

What they were made of travels in the LoRA's own file, in about a kilobyte, so that anyone can expand it. They
are recognised by that recipe and not by their values: orthogonal matrices differ in the last bit from one
linear algebra library to the next.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence

import torch

from ..errors import Video2LoRAError
from ..files.checkpoint import targets_from_list, targets_to_list
from ..files.digest import DIGEST_BYTES
from ..memory import require_memory
from ..spec import LayerTarget, Video2LoRAConfig, check_targets
from .light_lora import AuxiliaryMatrices

# With the recipe and a preview a file for all attention layers of AnimateDiff stays below 50 KB.
SEEDED_DOWN_DIM, SEEDED_UP_DIM = 52, 26
MAX_SEED = 2**63 - 1
_MAX_TARGETS_JSON = 4_000_000
_STORED = ("latent_channels", "rank", "alpha", "down_dim", "up_dim", "backbone", "latent_scale")


class SeededMatrices:
    """What an adaptive LoRA needs of the model that expands it, all of it made from a seed.

    config: its sizes and backbone; of a hypernetwork it says nothing. targets: the layers, in order.
    Raises Video2LoRAError for layers or sizes that cannot be used, and for more than fits into memory.
    """

    file_name = ""  # it comes from no checkpoint

    def __init__(self, config: Video2LoRAConfig, targets: Sequence[LayerTarget], seed: int) -> None:
        self.config, self.targets, self.seed = config, check_targets(targets), seed
        size = sum(
            4 * (config.down_dim * target.in_features + config.up_dim * target.out_features)
            for target in self.targets
        )
        require_memory(size, "The shared matrices of this adaptive LoRA", "take fewer layers")
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(seed)
            self.auxiliary = AuxiliaryMatrices(self.targets, config.rank, config.down_dim, config.up_dim)
        self.auxiliary.requires_grad_(False)

    @property
    def recipe(self) -> dict:
        """Plain JSON that `from_recipe` makes the same matrices of."""
        rows = json.dumps(targets_to_list(self.targets), separators=(",", ":")).encode()
        packed = base64.b85encode(zlib.compress(rows, 9)).decode()
        return {"seed": self.seed, "targets": packed} | {key: getattr(self.config, key) for key in _STORED}

    @property
    def fingerprint(self) -> str:
        """40 hexadecimal digits, a hash over the recipe."""
        facts = {"recipe": 1, "targets": targets_to_list(self.targets), "seed": self.seed}
        facts |= {key: getattr(self.config, key) for key in _STORED}
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()

    @classmethod
    def from_recipe(cls, recipe: Mapping, name: str) -> "SeededMatrices":
        """The matrices of a saved recipe; `name` is the file's, for messages.

        Raises Video2LoRAError for a recipe that is damaged.
        """
        try:
            seed = recipe["seed"]
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
                raise ValueError("seed")
            unpacking = zlib.decompressobj()
            rows = unpacking.decompress(base64.b85decode(recipe["targets"]), _MAX_TARGETS_JSON)
            targets = targets_from_list(json.loads(rows))
            settings = {key: recipe[key] for key in _STORED}
            config = Video2LoRAConfig(**settings, decoder_blocks=1, sample_iters=1)
        except (KeyError, TypeError, ValueError, zlib.error, RecursionError, Video2LoRAError) as error:
            raise Video2LoRAError(
                f"{name} was refined from nothing, and what it says of its shared matrices is damaged; "
                "refine and save it again."
            ) from error
        return cls(config, targets, seed)
