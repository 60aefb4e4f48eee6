"""The forms in which a network is saved, each by its own exporter."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

Save = Callable[[nn.Module, torch.Tensor, Path], None]


def state_dict(module: nn.Module, x: torch.Tensor, path: Path) -> None:
    torch.save(module.state_dict(), path)


def safetensors(module: nn.Module, x: torch.Tensor, path: Path) -> None:
    from safetensors.torch import save_file

    save_file(dict(module.state_dict()), path)


def pickled(module: nn.Module, x: torch.Tensor, path: Path) -> None:
    torch.save(module, path)


def pt2(module: nn.Module, x: torch.Tensor, path: Path) -> None:
    torch.export.save(torch.export.export(module, (x,)), path)


def torchscript(module: nn.Module, x: torch.Tensor, path: Path) -> None:
    torch.jit.save(torch.jit.trace(module, x, check_trace=False), path)  # type: ignore[no-untyped-call]


def onnx_script(opset: int) -> Save:
    def save(module: nn.Module, x: torch.Tensor, path: Path) -> None:
        torch.onnx.export(module, (x,), path, dynamo=False, opset_version=opset)

    return save


def onnx_dynamo(opset: int) -> Save:
    def save(module: nn.Module, x: torch.Tensor, path: Path) -> None:
        program = torch.onnx.export(module, (x,), dynamo=True, opset_version=opset)
        if program is None:
            raise RuntimeError("the exporter gave no program")
        program.save(path)

    return save


FORMS: dict[str, tuple[str, Save]] = {
    "state_dict": ("pt", state_dict),
    "safetensors": ("safetensors", safetensors),
    "pickled module": ("pth", pickled),
    "pt2": ("pt2", pt2),
    "TorchScript": ("pt", torchscript),
    "ONNX 14, TorchScript exporter": ("onnx", onnx_script(14)),
    "ONNX 17, TorchScript exporter": ("onnx", onnx_script(17)),
    "ONNX 18, dynamo exporter": ("onnx", onnx_dynamo(18)),
    "ONNX 21, dynamo exporter": ("onnx", onnx_dynamo(21)),
}
