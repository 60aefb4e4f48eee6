"""What keeps the network one network while several ranks train it; see ``compressor.distributed``.

Gradients are averaged by DistributedDataParallel, statistics of batch norms at the end of each
epoch, and then every rank's network is verified to be the same to the bit: weights, masks,
indices, codebooks.
"""

import hashlib
import warnings

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from compressor import distributed
from compressor.errors import StageError


def parallel(module: nn.Module, example: Tensor) -> nn.Module:
    """``module`` with its gradients averaged over the ranks at every backward pass.

    ``example`` (B, ...) is an input; it is run once, in evaluation mode, which changes nothing: the
    order in which gradients come decides how they are grouped for sending, and so the rounding of
    their sums. Known before the first step, it is the same in a training that is resumed.
    """
    was_training = module.training
    module.eval()
    with torch.enable_grad():
        parameters = [p for p in module.parameters() if p.requires_grad]
        found = torch.autograd.grad(module(example).sum(), parameters, allow_unused=True)
        with warnings.catch_warnings():  # newer versions call broadcast_buffers something else
            warnings.simplefilter("ignore", FutureWarning)
            wrapped = DistributedDataParallel(
                module,
                device_ids=[example.device.index] if example.is_cuda else None,
                # Each rank normalises by its own images (see average_statistics), and masks need no
                # sending.
                broadcast_buffers=False,
                init_sync=False,  # check_equal has seen to it, and would not see what this hides
                find_unused_parameters=any(gradient is None for gradient in found),
            )
        wrapped(example).sum().backward()
    module.zero_grad(set_to_none=True)
    module.train(was_training)
    return wrapped


def average_statistics(module: nn.Module) -> None:
    """Make floating-point buffers, which are batch norms' statistics, the mean of all ranks'.

    In float64, so that what is equal on all ranks stays as it is.
    """
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    if distributed.world() == 1 or not buffers:
        return
    joined = torch.cat([buffer.double().flatten() for buffer in buffers])
    means = distributed.total(joined) / distributed.world()
    for buffer, mean in zip(buffers, torch.split(means, [b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def check_equal(module: nn.Module, when: str) -> None:
    """Raise :class:`StageError`, on every rank, unless all ranks hold the same network."""
    if distributed.world() == 1:
        return
    digests = distributed.gather(_digests(module))
    for name, expected in digests[0].items():
        for rank, found in enumerate(digests):
            if found.get(name) != expected:
                raise StageError(
                    f"{when}: {name} of rank {rank} is not what rank 0 has; ranks must run the "
                    "same versions on the same files and the same kind of device"
                )


def _digests(module: nn.Module) -> dict[str, str]:
    return {
        name: hashlib.sha256(
            value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        ).hexdigest()
        for name, value in module.state_dict().items()
    }
