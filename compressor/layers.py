"""Masked and shared layers: the parametrizations that stages put on and export takes off.

``torch.nn.utils.parametrize`` computes ``layer.weight`` from what is trained, by what
``parametrizations.py`` has. The training loop need not know that a network is compressed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from compressor.errors import StageError
from compressor.parametrizations import Masked, Nearest, Scored, Shared


@dataclass(frozen=True)
class Layer:
    """One weight that stages may compress: its full name, ``conv`` or ``fc``, and the module.

    Most modules have one, called ``weight``, and the name is the module's. Recurrent layers and
    attention have several: then ``leaf`` says which, and the name ends in it.
    """

    name: str
    kind: str
    module: nn.Module
    leaf: str = "weight"

    @property
    def weight(self) -> Tensor:
        """The weight that the network computes with, detached."""
        return cast(Tensor, getattr(self.module, self.leaf)).detach()

    @property
    def tensor(self) -> str:
        """What the weight is called in the network's ``state_dict``."""
        return f"{self.name}.weight" if self.leaf == "weight" else self.name


_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


_PRODUCTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def compressible_layers(module: nn.Module, *, every_name: bool = False) -> dict[str, Layer]:
    """Convolutions and linear layers by name, in the network's own order.

    A layer that the network holds under several names stands under the first, or under each. Each
    matrix of a recurrent layer, and what attention projects its inputs by, is a linear layer.
    """
    layers = {}
    for name, child in module.named_modules(remove_duplicate=not every_name):
        if isinstance(child, _CONVOLUTIONS):
            layers[name] = Layer(name, "conv", child)
        elif isinstance(child, nn.Linear):
            layers[name] = Layer(name, "fc", child)
        for leaf in _matrices(child):
            own = f"{name}.{leaf}" if name else leaf
            layers[own] = Layer(own, "fc", child, leaf)
    return layers


def single_layers(module: nn.Module) -> dict[str, Layer]:
    """Those of the compressible layers that are modules of one weight, run as such: what measures a
    layer's inputs and outputs can measure these."""
    return {n: layer for n, layer in compressible_layers(module).items() if layer.leaf == "weight"}


def _matrices(module: nn.Module) -> list[str]:
    """The names of the weights of a module that has several."""
    if isinstance(module, nn.RNNBase):
        return [leaf for leaf in module._flat_weights_names if leaf.startswith("weight_")]
    if isinstance(module, nn.MultiheadAttention):
        return [leaf for leaf in _PRODUCTS if getattr(module, leaf, None) is not None]
    return []


def batch_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """Batch norms by name, in the network's own order."""
    found = module.named_modules()
    return {name: child for name, child in found if isinstance(child, _BatchNorm)}


def mask_layer(layer: Layer, mask: Tensor, kind: type[Masked] = Masked) -> None:
    """Put ``mask`` (bool, the weight's shape) on a layer, in place of any mask it had.

    What an earlier mask hid is lost. ``kind`` says what pruned weights learn.
    """
    put_on(layer, kind(mask))


def put_on(layer: Layer, step: nn.Module) -> None:
    """Let ``step`` compute the weight from now on, in place of whatever did."""
    # New indices ask nothing of the old values, and a large layer has no room to compute them.
    old = isinstance(step, Shared) and not isinstance(step_of(layer), Shared)
    strip(layer, computed=not old)
    # Unsafe is what torch calls it not to compute the weight at once, to see whether it fits.
    parametrize.register_parametrization(layer.module, layer.leaf, step, unsafe=True)
    if isinstance(layer.module, nn.RNNBase):
        # It keeps a list of its weights, which must be looked up each time now. The class is the
        # module's own: torch has made it for its parametrizations.
        layer.module.__dict__.pop("_flat_weights", None)
        type(layer.module)._flat_weights = property(_flat_weights, lambda *_: None)  # type: ignore[assignment]


def _flat_weights(module: nn.RNNBase) -> list[Any]:
    return [getattr(module, name, None) for name in module._flat_weights_names]


def change_mask(layer: Layer, mask: Tensor) -> None:
    """Another mask for a masked layer, in place: its weights stay, also those behind the mask."""
    step = step_of(layer)
    if not isinstance(step, Masked):
        raise StageError(f"{layer.name} has no mask to change")
    step.mask.copy_(mask)


def trained_weight(layer: Layer) -> Tensor:
    """What is trained of a layer's weight: the dense weight of a masked layer, also what the mask
    hides; the codebook of a shared one."""
    if not parametrize.is_parametrized(layer.module, layer.leaf):
        return cast(Tensor, getattr(layer.module, layer.leaf))
    return cast(Tensor, _steps(layer).original)


def behind_mask(layer: Layer) -> Tensor:
    """The dense weight of a masked layer, detached: what the mask hides still has a value."""
    return trained_weight(layer).detach()


def scores_of(layer: Layer) -> Tensor:
    """The scores of a layer that is masked by :class:`Scored`, detached."""
    step = step_of(layer)
    if not isinstance(step, Scored):
        raise StageError(f"{layer.name} has no scores")
    return step.scores.detach()


def share_layer(layer: Layer, indices: Tensor, codebook: Tensor) -> None:
    """Replace a layer's weight by ``codebook[indices - 1]`` (0: pruned); see :class:`Shared`."""
    put_on(layer, Shared(indices, codebook))
    # torch gives the dense weight's own parameter another shape, which autograd's record of it,
    # kept alive by whatever has averaged its gradients, does not follow: a codebook is a new one.
    steps = _steps(layer)
    old = cast(nn.Parameter, steps.original)
    steps.original = nn.Parameter(old.detach().clone(), requires_grad=old.requires_grad)


def mask_of(layer: Layer) -> Tensor | None:
    """The bool mask of a masked or shared layer; None where the layer is dense."""
    step = step_of(layer)
    if isinstance(step, Masked):
        return step.mask
    return step.indices != 0 if isinstance(step, Shared) else None


def retrain_shared(layer: Layer) -> bool:
    """Let a shared layer's weights train on behind their shared values; whether it was shared."""
    step = step_of(layer)
    if not isinstance(step, Shared):
        return False
    values, codebook = layer.weight.clone(), torch.from_numpy(shared_of(layer)[1])  # type: ignore[index]
    nearest = Nearest(step.indices != 0, codebook.to(values.device, copy=True))
    put_on(layer, nearest)
    return True


def settle_shared(layer: Layer) -> None:
    """End :func:`retrain_shared`: the values are shared as they came out; unused entries go."""
    step = step_of(layer)
    if not isinstance(step, Nearest):
        raise StageError(f"{layer.name} was not training behind shared values")
    labels = step.labels(trained_weight(layer).detach())
    used, labels = torch.unique(labels[step.mask], return_inverse=True)
    indices = torch.zeros(step.mask.shape, dtype=torch.int32, device=step.mask.device)
    indices[step.mask] = labels.to(torch.int32) + 1
    share_layer(layer, indices, step.codebook[used].clone())


def shared_of(layer: Layer) -> tuple[NDArray[np.int32], NDArray[np.float32]] | None:
    """(indices, codebook) of a shared layer as arrays; None where weights are not shared."""
    step = step_of(layer)
    if not isinstance(step, Shared):
        return None
    return step.indices.cpu().numpy(), trained_weight(layer).detach().cpu().numpy()


def bake(module: nn.Module) -> None:
    """Take every parametrization off and leave plain weights with the values they computed."""
    for layer in reversed(compressible_layers(module).values()):
        strip(layer)


def restore(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put on a plain network the parametrizations that ``state`` (its saved form) has, and load.

    Raises :class:`StageError` where the state is of another network.
    """
    layers = compressible_layers(module, every_name=True)
    try:
        for key, value in state.items():
            owner, _, rest = key.rpartition(".parametrizations.")
            leaf, _, what = rest.partition(".0.")
            name = owner if leaf == "weight" else f"{owner}.{leaf}"
            if what == "mask":
                mask_layer(layers[name], value)
            elif what == "indices":
                codebook = state[f"{owner}.parametrizations.{leaf}.original"]
                share_layer(layers[name], value, codebook)
        module.load_state_dict(dict(state))
    except (KeyError, RuntimeError, ValueError) as error:
        raise StageError(f"a saved stage does not fit this network: {error}") from None


def _steps(layer: Layer) -> nn.Module:
    """torch's list of what computes a parametrized weight, with the ``original`` behind it."""
    every = cast(nn.ModuleDict, layer.module.parametrizations)
    return every[layer.leaf]


def step_of(layer: Layer) -> nn.Module | None:
    """What computes a layer's weight; None where it is plain."""
    if not parametrize.is_parametrized(layer.module, layer.leaf):
        return None
    return cast(nn.ModuleList, _steps(layer))[0]


def strip(layer: Layer, *, computed: bool = True) -> None:
    """Leave of a weight the plain values that it was computed to, or those it was computed from."""
    module, leaf = layer.module, layer.leaf
    if not parametrize.is_parametrized(module, leaf):
        return
    # torch deletes the weight's property from the class, which deep copies of the module share.
    own = type(module)
    module.__class__ = type(own.__name__, own.__bases__, dict(vars(own)))
    parametrize.remove_parametrizations(module, leaf, leave_parametrized=computed)
    if isinstance(module, nn.RNNBase) and not parametrize.is_parametrized(module):
        module.__dict__["_flat_weights"] = _flat_weights(module)
    # The weight has become the last parameter: put those that it stood before behind it again.
    for name, parameter in list(module.named_parameters(recurse=False)):
        if name != leaf:
            delattr(module, name)
            module.register_parameter(name, parameter)
