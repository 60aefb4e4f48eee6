"""NNCodec behind a pipe. Runs inside its own environment (`environment.py`), on that side alone.

Each line on stdin is one request, each line on stdout its reply, both JSON; tensors travel in .npz
files. nncodec's package for training frameworks imports torch, torchvision, wandb, flwr, cv2 and
more at once, and coding a dict of arrays needs none of it: empty modules stand in for it, so that
the environment holds NumPy and nncodec alone.
"""

import json
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np

FRAMEWORK = "nncodec.framework"
PARTS = ("tensorflow_model", "pytorch_model", "use_case_init", "applications")

Row = dict[str, Any]


def stand_in() -> None:
    """Put an empty nncodec.framework where the real one would be imported."""
    package = types.ModuleType(FRAMEWORK)
    sys.modules[FRAMEWORK] = package
    for part in PARTS:
        module = types.ModuleType(f"{FRAMEWORK}.{part}")
        sys.modules[module.__name__] = module
        setattr(package, part, module)


class Worker:
    """Holds the tensors, the last bitstream, and the integers that went into it."""

    def __init__(self) -> None:
        stand_in()
        from nncodec import nnc
        from nncodec.nnc_core import coder

        self.codec = nnc
        self.tensors: dict[str, Any] = {}
        self.blocks: Row | None = None
        self.stream = bytearray()
        self.folded = False
        self.seen: Row = {}
        self.encoder = coder.encode
        coder.encode = self.watched

    def watched(self, enc_info: Row, model_info: Row, approx_data: Row, **others: Any) -> Any:
        """NNCodec's own encoder, with a look at the integers it is given."""
        self.seen = approx_data
        return self.encoder(
            enc_info=enc_info, model_info=model_info, approx_data=approx_data, **others
        )

    def load(self, tensors: str, blocks: Row | None) -> Row:
        with np.load(tensors) as file:
            self.tensors = {name: file[name] for name in file.files}
        self.blocks = blocks
        return {"weights": sum(value.size for value in self.tensors.values())}

    def encode(self, settings: Row) -> Row:
        self.folded = settings["bnf"]
        start = time.perf_counter()
        self.stream = self.codec.compress(
            self.tensors,
            bitstream_path=None,
            return_bitstream=True,
            block_id_and_param_type=self.blocks if self.folded else None,
            **settings,
        )
        return {"seconds": time.perf_counter() - start, "bytes": len(self.stream)}

    def decode(self, out: str | None) -> Row:
        start = time.perf_counter()
        tensors = self.codec.decompress(
            self.stream,
            block_id_and_param_type=self.blocks if self.folded else None,
            reconstruct_bnf=self.folded,
            reconstruct_lsa=self.folded,
        )
        seconds = time.perf_counter() - start
        if out is not None:
            np.savez(out, **tensors)
        return {"seconds": seconds}

    def integers(self, out: str) -> Row:
        """The levels of the last `encode` and their steps; a decoded weight is level times step."""
        density = int(self.seen["qp_density"])
        arrays: dict[str, Any] = {}
        for name, levels in self.seen["parameters"].items():
            arrays[f"levels/{name}"] = levels
            arrays[f"step/{name}"] = step(int(self.seen["qp"][name]), density)
        np.savez_compressed(out, **arrays)
        return {"tensors": len(arrays) // 2}

    def save(self, out: str) -> Row:
        Path(out).write_bytes(self.stream)
        return {"bytes": len(self.stream)}


def step(qp: int, density: int) -> Any:
    """Quantizer step of NNC (ISO/IEC 15938-17) for a quantization parameter, float32."""
    per_octave = 1 << density
    mantissa = per_octave + (qp & (per_octave - 1))
    return np.float32(mantissa * 2.0 ** ((qp >> density) - density))


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what nncodec prints must not be taken for a reply
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        reply = getattr(worker, request.pop("do"))(**request)
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
