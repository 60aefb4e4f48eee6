"""A recorded graph that runs with any batch, though sizes of one batch stand in it."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from compressor.graphs.onnx_shapes import same_batch, with_batch

_VIEWS = ("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default")


class Freed(nn.Module):
    """Computes ``module``, recorded for a batch of ``fixed``, for whatever batch it is given."""

    def __init__(self, module: fx.GraphModule, fixed: int) -> None:
        super().__init__()
        # The very tables, so that what replaces a tensor here, as torch.export does, does it there.
        for table in ("_modules", "_parameters", "_buffers"):
            self.__dict__[table] = module.__dict__[table]
        self.fixed = fixed
        object.__setattr__(self, "recorded", module)  # not a part, so that names stay as they are

    def forward(self, *inputs: Tensor) -> Any:
        recorded: fx.GraphModule = self.__dict__["recorded"]
        return _Run(recorded, self.fixed).run(*inputs)


def _for_batch(states: Any, batch: Any) -> Any:
    """First states (layers, 1, hidden) that were recorded for one, for all of a batch."""
    if isinstance(states, tuple | list):
        return type(states)(_for_batch(state, batch) for state in states)
    return states.expand(-1, batch, -1) if isinstance(states.shape[1], int) else states


class _Run(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, fixed: int) -> None:
        super().__init__(module)
        self.fixed = fixed

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        name = str(target)
        if name in _VIEWS:
            x, sizes = args
            return x.reshape(with_batch(list(x.shape), list(sizes), self.fixed))
        if name == "aten.expand.default":
            return args[0].expand(self._expanded(args[0], list(args[1])))
        if name == "aten.cat.default" and self.fixed == 1:
            tensors, axis = args[0], args[1] if len(args) > 1 else 0
            return torch.cat(same_batch(list(tensors), axis, self.fixed), axis)
        if name in ("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input"):
            x, states, *others = args
            batch = x.shape[0 if others[-1] else 1]
            args = (x, _for_batch(states, batch), *others)
        return super().call_function(target, args, kwargs)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        layer = self.fetch_attr(target)
        if isinstance(layer, nn.RNNBase) and len(args) > 1 and self.fixed == 1:
            x, states = args
            args = (x, _for_batch(states, x.shape[0 if layer.batch_first else 1]))
        return super().call_module(target, args, kwargs)

    def _expanded(self, x: Tensor, sizes: list[Any]) -> list[Any]:
        """A size that stands for the batch in what is expanded stays the value's own."""
        lead = len(sizes) - x.ndim
        return [
            own if isinstance(own, torch.SymInt) else size
            for own, size in zip([1] * lead + list(x.shape), sizes, strict=True)
        ]
