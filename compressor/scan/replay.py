"""A network run again from where it changes: everything before that is computed once.

What is changed are parameters. The graph's operators stand in an order in which all that a
parameter can reach comes after its first use; so values computed before that hold for every
change of it, and a scan of a network of n equal layers costs half of n whole runs.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from compressor.channels.propagation import operator_name
from compressor.channels.rewriting import CHECKS
from compressor.errors import StageError

Operators = Callable[[fx.Node, tuple[Any, ...], dict[str, Any]], Any]
"""(operator, its arguments) -> its value, or ``NotImplemented`` where it is as always."""

_Values = dict[fx.Node, Any]


class Replay:
    """``module`` as ``program``, its exported graph, computes it, in evaluation mode."""

    def __init__(self, module: nn.Module, program: torch.export.ExportedProgram) -> None:
        signature = program.graph_signature
        held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        known = {
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False)),
        }
        constants = {**program.constants, **program.tensor_constants}
        lifted = signature.inputs_to_lifted_tensor_constants
        self.program = program
        self.names: dict[fx.Node, str] = {}
        self.tensors: _Values = {}
        self.inputs: list[fx.Node] = []
        self.nodes: list[fx.Node] = []
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name in held:
                self.names[node] = held[node.name]
                self.tensors[node] = known[held[node.name]].detach()
            elif node.op == "placeholder" and node.name in lifted:
                self.tensors[node] = constants[lifted[node.name]]
            elif node.op == "placeholder":
                self.inputs.append(node)
            elif operator_name(node) not in CHECKS:
                self.nodes.append(node)
        if len(self.inputs) != 1:
            raise StageError(f"the network takes {len(self.inputs)} inputs, not one")
        self.last = {
            used: at for at, node in enumerate(self.nodes) for used in node.all_input_nodes
        }
        writes = [at for at, node in enumerate(self.nodes) if _writes(node)]
        self.last_write = max(writes, default=-1)

    def start(self, changed: Iterable[str]) -> int:
        """The position of the first operator that uses one of these parameters.

        A parameter has every name under which the module holds it. Raises :class:`StageError`
        where nothing uses one.
        """
        wanted = set(changed)
        places = {node for node, name in self.names.items() if name in wanted}
        for at, node in enumerate(self.nodes):
            if places.intersection(node.all_input_nodes):
                return at
        raise StageError(f"{', '.join(sorted(wanted))}: the network does not use it")

    def begin(self, x: Tensor) -> "Cursor":
        """Before the first operator, for one batch of inputs (B, ...)."""
        return Cursor(self, {**self.tensors, self.inputs[0]: x})


class Cursor:
    """One batch half-way through the network: the values that operators still to come need."""

    def __init__(self, replay: Replay, values: _Values) -> None:
        self._replay, self._values = replay, values
        self.at = 0

    def advance(self, to: int) -> None:
        """Run the operators up to position ``to``, this one excluded."""
        self._run(self._values, self.at, to, None)
        self.at = max(self.at, to)

    def output(self, changes: Mapping[str, Tensor], operators: Operators | None = None) -> Tensor:
        """What the network gives from here on with ``changes`` in place of its own parameters.

        The cursor stays where it is. ``operators`` may compute some operators in another way.
        """
        replay = self._replay
        values = dict(self._values)
        if self.at <= replay.last_write:
            # An operator to come writes to its input: in one copy, so that views stay views.
            own = [node for node in values if node not in replay.tensors]
            values.update(zip(own, copy.deepcopy([values[node] for node in own]), strict=True))
        for node, name in replay.names.items():
            if name in changes:
                values[node] = changes[name]
        found = self._run(values, self.at, len(replay.nodes), operators)
        if not isinstance(found, Tensor):
            raise StageError("the network does not give one tensor")
        return found

    def _run(self, values: _Values, start: int, end: int, operators: Operators | None) -> Any:
        replay = self._replay
        with torch.no_grad():
            for at in range(start, end):
                node = replay.nodes[at]
                args = fx.node.map_arg(node.args, values.__getitem__)
                if node.op == "output":
                    return pytree.tree_leaves(args)[0]
                if node.op == "get_attr":
                    values[node] = getattr(replay.program.graph_module, str(node.target))
                    continue
                kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
                found = NotImplemented if operators is None else operators(node, args, kwargs)
                if found is NotImplemented:
                    compute: Any = node.target
                    found = compute(*args, **kwargs)
                values[node] = found
                for used in node.all_input_nodes:
                    if replay.last[used] == at and used not in replay.tensors:
                        del values[used]
        return None


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)
