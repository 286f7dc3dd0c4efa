"""What the tensors of an SD1.5-family checkpoint do not tell, and how it is kept in the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import torch

from ....video2lora_core.errors import Video2LoRAError

METADATA_KEY = "video2lora_backbone"
SD15_CONTEXT_TOKENS = 77
MAX_BYTES = 4096


@dataclass(frozen=True)
class BackboneFacts:
    """What the tensors of a checkpoint do not tell; the defaults are SD1.5's.

    beta_schedule uses the host's names: "linear" is SD1.5's own, "sqrt_linear" is AnimateDiff's.
    clip_heads 0 means one head per 64 features.
    """

    num_heads: int = 8
    clip_heads: int = 0
    beta_schedule: str = "linear"
    context_tokens: int = SD15_CONTEXT_TOKENS

    @classmethod
    def read(
        cls, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], name: str
    ) -> BackboneFacts:
        """From a checkpoint's metadata, or from the tensor that takes their place; absent ones are SD1.5's.

        Raises Video2LoRAError when what is stored makes no sense.
        """
        try:
            text = metadata.get(METADATA_KEY, "{}")
            if METADATA_KEY not in metadata and METADATA_KEY in tensors:
                text = bytes(int(byte) for byte in tensors[METADATA_KEY][:MAX_BYTES].tolist()).decode()
            stored = json.loads(text)
            known = {field.name: field.type for field in fields(cls)}
            facts = cls(**{key: value for key, value in stored.items() if key in known})
            numbers = (facts.num_heads, facts.clip_heads, facts.context_tokens)
            valid = all(type(number) is int and 0 <= number <= 4096 for number in numbers)
            valid = valid and facts.num_heads > 0 and facts.context_tokens > 2
            valid = valid and facts.beta_schedule in ("linear", "sqrt_linear")
        except (ValueError, OverflowError, IndexError, AttributeError, TypeError, RecursionError):
            valid = False
        if not valid:
            raise Video2LoRAError(
                f"The metadata entry '{METADATA_KEY}' of '{name}' is not valid; save the checkpoint again "
                "with num_heads, clip_heads, beta_schedule and context_tokens in it."
            )
        return facts

    def as_tensor(self) -> torch.Tensor:
        """The facts as bytes, for hosts that save tensors but no metadata of ours.

        In float32: checkpoints with tensors that are no weights are refused.
        """
        return torch.tensor(list(json.dumps(asdict(self)).encode()), dtype=torch.float32)
