"""Editing the graph of an exported module: new calls with their shapes, replaced nodes, arguments by name.

Every value's shape and type is kept as a tensor on the meta device, so that a pass can ask for the shape of what it
has just inserted.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, fx

ATEN = torch.ops.aten
PERMUTE = ATEN.permute.default
RESHAPE = ATEN.reshape.default
SLICE = ATEN.slice.Tensor

_VALUE = "val"


class Editor:
    """A graph under change.

    Args:
        module: an exported program's module (``ExportedProgram.module()``), changed in place.

    Attributes:
        kept: nodes that stay although nobody reads them yet.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.graph = module.graph
        self.kept: set[fx.Node] = set()
        for node in self.graph.nodes:
            self._describe(node)

    def call(self, target: Any, *args: Any, at: fx.Node, **kwargs: Any) -> fx.Node:  # noqa: ANN401 - any operator
        """Inserts a call before ``at`` and returns it."""
        with self.graph.inserting_before(at):
            node = self.graph.call_function(target, args, kwargs)
        self._describe(node)
        return node

    def constant(self, name: str, value: Tensor, *, at: fx.Node) -> fx.Node:
        """Registers a buffer of the module and inserts a node that reads it before ``at``."""
        self.module.register_buffer(name, value)
        with self.graph.inserting_before(at):
            node = self.graph.get_attr(name)
        self._describe(node)
        return node

    def permute(self, source: fx.Node, order: list[int], *, at: fx.Node) -> fx.Node:
        """``source`` with its dimensions in another order; what is no change of data is written as a view."""
        if is_permute(source):
            first = order_of(source)
            source, order = tensor_argument(source), [first[dim] for dim in order]
        shape = shape_of(source)
        if order == sorted(order):
            return source
        if keeps_data(shape, order):
            return self.reshape(source, [shape[dim] for dim in order], at=at)
        return self.call(PERMUTE, source, order, at=at)

    def reshape(self, source: fx.Node, shape: list[int], *, at: fx.Node) -> fx.Node:
        """``source`` in another shape, or itself where the shape is the same; views of views become one."""
        while source.target is RESHAPE:
            source = tensor_argument(source)
        if list(shape_of(source)) == shape:
            return source
        return self.call(RESHAPE, source, shape, at=at)

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Lets every user of ``old`` read ``new``, and removes ``old``."""
        old.replace_all_uses_with(new)
        self.graph.erase_node(old)

    def attribute(self, node: fx.Node) -> Tensor:
        """The tensor that a ``get_attr`` node reads."""
        owner, _, leaf = str(node.target).rpartition(".")
        return cast("Tensor", getattr(self.module.get_submodule(owner), leaf))

    def set_attribute(self, node: fx.Node, value: Tensor) -> None:
        """Puts another buffer in the place of the one that a ``get_attr`` node reads."""
        owner, _, leaf = str(node.target).rpartition(".")
        self.module.get_submodule(owner).register_buffer(leaf, value)
        self.describe(node)

    def describe(self, node: fx.Node) -> None:
        """Computes a node's shape anew after its arguments changed."""
        node.meta.pop(_VALUE, None)
        self._describe(node)

    def _describe(self, node: fx.Node) -> None:
        """Sets the meta tensor of a node: of what export recorded, of the attribute, or of the call."""
        if node.op == "output":
            return
        known = node.meta.get(_VALUE)
        if known is None and node.op == "get_attr":
            known = self.attribute(node)
        if known is None and node.op == "call_function":
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda argument: argument.meta[_VALUE])
            function: Any = node.target
            with torch.no_grad():
                known = function(*args, **kwargs)
        node.meta[_VALUE] = _as_meta(known)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's tensor; () where it holds none."""
    value = node.meta[_VALUE]
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def is_tensor(node: object) -> bool:
    """Whether an argument is a node that holds one tensor."""
    return isinstance(node, fx.Node) and isinstance(node.meta.get(_VALUE), Tensor)


def dtype_of(node: fx.Node) -> torch.dtype | None:
    """Type of a node's tensor."""
    value = node.meta.get(_VALUE)
    return value.dtype if isinstance(value, Tensor) else None


def tensor_argument(node: fx.Node, position: int = 0) -> fx.Node:
    """A positional argument that is a node."""
    return cast("fx.Node", node.args[position])


def is_permute(node: object) -> bool:
    """Whether a node permutes dimensions (after ``tidy`` there is one operator for that)."""
    return isinstance(node, fx.Node) and node.target is PERMUTE


def order_of(permutation: fx.Node) -> list[int]:
    """Dimensions of a permutation, counted from the front."""
    dims = cast("list[int]", permutation.args[1])
    return [dim % len(dims) for dim in dims]


def keeps_data(shape: tuple[int, ...], order: list[int]) -> bool:
    """Whether a permutation moves dimensions of one element only: the same data in the same order."""
    moved = [dim for dim in order if shape[dim] != 1]
    return moved == sorted(moved)


def arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments of a call by the names of its schema, defaults included."""
    schema = cast("Any", node.target)._schema  # noqa: SLF001 - an operator's schema has no public name
    named = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    for argument, value in zip(schema.arguments, node.args, strict=False):
        named[argument.name] = value
    return named | dict(node.kwargs)


def set_arguments(node: fx.Node, values: dict[str, Any]) -> None:
    """Writes a call's arguments in the order of its schema."""
    schema = cast("Any", node.target)._schema  # noqa: SLF001 - as above
    node.args = tuple(values[argument.name] for argument in schema.arguments if not argument.kwarg_only)
    node.kwargs = {argument.name: values[argument.name] for argument in schema.arguments if argument.kwarg_only}


def written_arguments(node: fx.Node) -> list[fx.Node]:
    """The argument nodes that a call writes to."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return []
    given = arguments(node)
    written = [
        given.get(argument.name)
        for argument in schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return [argument for argument in written if isinstance(argument, fx.Node)]


def _as_meta(value: Any) -> Any:  # noqa: ANN401 - whatever a node holds
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    if isinstance(value, (tuple, list)):
        return tuple(_as_meta(item) for item in value)
    return value
