"""Tensors as the bytes of a ``.safetensors`` file, one after another.

The library's own writer makes all bytes of a file at once, a second copy of a whole network. The
format is its README's: eight bytes of length, a JSON header, and the tensors without gaps.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

_NAMES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8"},
    **{torch.uint8: "U8", torch.bool: "BOOL"},
}


def chunks(state: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Header, then each tensor's bytes; ``about`` goes into the header's metadata.

    Names may share memory: each has its own bytes in the file. Tensors of larger elements come
    first, so that every one lies at a multiple of its element's size.
    """
    order = sorted(state, key=lambda name: (-state[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": dict(about)} if about else {}
    at = 0
    for name in order:
        value = state[name]
        size = value.numel() * value.element_size()
        header[name] = {
            "dtype": _NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        plain = state[name].detach().cpu().contiguous()
        yield plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b""
