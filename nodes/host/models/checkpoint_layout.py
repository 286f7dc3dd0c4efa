"""Whether tensors are laid out as the host's module wants them; the host itself only logs what is not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import comfy.model_management
import torch

from ....video2lora_core.errors import Video2LoRAError


@contextmanager
def errors_in_words(name: str, part: str) -> Iterator[None]:
    """Turn what the host raises while it builds a part from unsuitable tensors into a Video2LoRAError."""
    try:
        yield
    except (Video2LoRAError, comfy.model_management.OOM_EXCEPTION):
        raise
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Video2LoRAError(
            f"The {part} in '{name}' is not laid out as SD1.5's ({type(error).__name__}: {reason}); "
            "the file is incomplete or of another kind, get it again."
        ) from error


def layout_of(module: torch.nn.Module) -> dict[str, torch.Size]:
    """The shapes of a module's state dict, by key, whether or not its weights are there already.

    Newer hosts make the weights of Linears and embeddings only when a state dict is loaded, and then take
    them in any shape: what counts is the shape that the layer was made for.
    """
    shapes = {key: weight.shape for key, weight in module.state_dict().items()}
    for path, layer in module.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(layer, torch.nn.Linear):
            shapes[f"{prefix}weight"] = torch.Size((layer.out_features, layer.in_features))
            if layer.bias is not None or getattr(layer, "comfy_need_lazy_init_bias", False):
                shapes[f"{prefix}bias"] = torch.Size((layer.out_features,))
        elif isinstance(layer, torch.nn.Embedding):
            shapes[f"{prefix}weight"] = torch.Size((layer.num_embeddings, layer.embedding_dim))
    return shapes


def require_same_layout(
    module: torch.nn.Module,
    state: Mapping[str, torch.Tensor],
    name: str,
    part: str,
    optional: tuple[str, ...] = (),
) -> None:
    """Raise Video2LoRAError when `state` lacks or misshapes a weight of `module`; the host only logs it."""
    for key, shape in layout_of(module).items():
        if key not in state and optional and key.endswith(optional):
            continue
        if key not in state:
            raise Video2LoRAError(
                f"The {part} in '{name}' lacks '{key}'; the file is incomplete, get it again."
            )
        if state[key].numel() != math.prod(shape) or (shape and state[key].shape != shape):
            raise Video2LoRAError(
                f"The {part} in '{name}' has '{key}' of shape {tuple(state[key].shape)} where "
                f"{tuple(shape)} fits; the file does not hold one consistent model."
            )
