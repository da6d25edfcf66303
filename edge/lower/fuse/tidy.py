"""One way to say one thing: every view a ``reshape``, every transposition a ``permute``, every part a ``slice``.

After this pass no call of the model writes to an activation, and nothing is left that does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from edge.lower.fuse.graph import (
    ATEN,
    PERMUTE,
    RESHAPE,
    SLICE,
    Editor,
    arguments,
    dtype_of,
    is_tensor,
    order_of,
    shape_of,
    tensor_argument,
    written_arguments,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_VIEWS = {
    ATEN.view.default,
    ATEN.reshape.default,
    ATEN._unsafe_view.default,  # noqa: SLF001 - the operator's name
    ATEN.flatten.using_ints,
    ATEN.unflatten.int,
    ATEN.unsqueeze.default,
    ATEN.squeeze.default,
    ATEN.squeeze.dim,
    ATEN.squeeze.dims,
}
_IDLE = {
    ATEN.clone.default,
    ATEN.contiguous.default,
    ATEN.alias.default,
    ATEN.detach.default,
    ATEN.detach_.default,
    ATEN.to.dtype,
    ATEN.to.dtype_layout,
    ATEN.to.device,
    ATEN.type_as.default,
    ATEN._to_copy.default,  # noqa: SLF001 - the operator's name
    ATEN.expand.default,
}
"""Nothing happens in these while shape and type stay: activations are contiguous, everything is on the CPU."""
_PARTS = {
    ATEN.chunk.default,
    ATEN.split.Tensor,
    ATEN.split_with_sizes.default,
    ATEN.tensor_split.sections,
    ATEN.unbind.int,
}
_COUNTS = {ATEN.add.Tensor, ATEN.mul.Tensor}
_ALIASES = {*_VIEWS, *_IDLE, *_PARTS, PERMUTE, SLICE, ATEN.transpose.int, ATEN.t.default, ATEN.select.int}


class AliasesAreWritten(Exception):  # noqa: N818 - not an error of anybody: the program is lowered as it is
    """The model writes into an activation of which it also reads a view: order matters, nothing may move."""


def tidy(editor: Editor) -> None:
    """Rewrites the graph in place.

    Raises:
        AliasesAreWritten: nothing was changed that would change a result.
    """
    for node in list(editor.graph.nodes):
        if node.op == "call_function":
            _write_elsewhere(editor, node)
    for node in list(editor.graph.nodes):
        if node.op == "call_function":
            _tidy(editor, node)
    drop_unread(editor)


def drop_unread(editor: Editor) -> None:
    """Removes calls without users that change nothing, and the later of two views or row numbers that are the same."""
    seen: dict[tuple[object, str], fx.Node] = {}
    for node in list(editor.graph.nodes):
        if node.target in {PERMUTE, RESHAPE} or (dtype_of(node) is torch.int64 and node.target in _COUNTS):
            known = seen.setdefault((node.target, str(node.args)), node)
            if known is not node:
                editor.replace(node, known)
    editor.graph.eliminate_dead_code(is_impure_node=lambda node: _acts(node) or node in editor.kept)


def _tidy(editor: Editor, node: fx.Node) -> None:
    target = node.target
    if target in _IDLE and _same(node, tensor_argument(node)):
        editor.replace(node, tensor_argument(node))
    elif target in _VIEWS:
        replace_by(editor, node, lambda: editor.reshape(tensor_argument(node), list(shape_of(node)), at=node))
    elif (order := _order(node)) is not None:
        source: Any = node.args[1][0] if target is ATEN.einsum.default else node.args[0]  # type: ignore[index]
        replace_by(editor, node, lambda: editor.permute(source, order, at=node))
    elif target is SLICE and _same(node, tensor_argument(node)):
        editor.replace(node, tensor_argument(node))
    elif target is ATEN.select.int:
        replace_by(editor, node, lambda: _select(editor, *node.args, at=node))
    elif target in _PARTS:
        _take_parts(editor, node)


def replace_by(editor: Editor, node: fx.Node, make: Callable[[], fx.Node]) -> None:
    """Replaces a node by what ``make`` inserts, unless that is the node itself."""
    made = make()
    if made is not node:
        editor.replace(node, made)


def _same(node: fx.Node, source: fx.Node) -> bool:
    return is_tensor(source) and shape_of(node) == shape_of(source) and dtype_of(node) == dtype_of(source)


def _order(node: fx.Node) -> list[int] | None:
    """The permutation that a call makes, or None."""
    rank = len(shape_of(node))
    match node.target:
        case ATEN.permute.default:
            return order_of(node)
        case ATEN.t.default:
            return [1, 0] if rank == 2 else None
        case ATEN.transpose.int:
            given = arguments(node)
            first, second = given["dim0"] % rank, given["dim1"] % rank
            order = list(range(rank))
            order[first], order[second] = order[second], order[first]
            return order
        case ATEN.movedim.int:
            given = arguments(node)
            source, destination = given["source"] % rank, given["destination"] % rank
            order = [dim for dim in range(rank) if dim != source]
            return [*order[:destination], source, *order[destination:]]
        case ATEN.einsum.default:
            return _einsum_order(node)
        case _:
            return None


def _einsum_order(node: fx.Node) -> list[int] | None:
    """The permutation that a sum over nothing of one operand is."""
    equation, operands = str(node.args[0]).replace(" ", ""), node.args[1]
    before, arrow, after = equation.partition("->")
    plain = arrow and before.isalpha() and len(set(before)) == len(before) and sorted(before) == sorted(after)
    if not plain or len(operands) != 1:  # type: ignore[arg-type]
        return None
    return [before.index(letter) for letter in after]


def _select(editor: Editor, source: Any, dim: Any, index: Any, *, at: fx.Node) -> fx.Node:  # noqa: ANN401
    """One entry of a dimension: a slice of length 1, then the dimension dropped."""
    shape = list(shape_of(source))
    dim %= len(shape)
    index %= shape[dim]
    part = editor.call(SLICE, source, dim, index, index + 1, at=at) if shape[dim] > 1 else source
    return editor.reshape(part, [*shape[:dim], *shape[dim + 1 :]], at=at)


def _take_parts(editor: Editor, node: fx.Node) -> None:
    """Chunks, splits and unbound tensors become slices of their source, each where it is used."""
    if any(user.op != "call_function" or "getitem" not in str(user.target) for user in node.users):
        return
    source, given = tensor_argument(node), arguments(node)
    dim = given["dim"] % len(shape_of(source))
    values: tuple[Tensor, ...] = node.meta["val"]
    unbinds = node.target is ATEN.unbind.int
    sizes = [1 if unbinds else part.shape[dim] for part in values]
    for user in list(node.users):
        index = int(user.args[1]) % len(sizes)  # type: ignore[arg-type]
        if unbinds:
            editor.replace(user, _select(editor, source, dim, index, at=user))
        else:
            start = sum(sizes[:index])
            part = editor.call(SLICE, source, dim, start, start + sizes[index], at=user)
            editor.replace(user, part)
    editor.graph.erase_node(node)


def _write_elsewhere(editor: Editor, node: fx.Node) -> None:
    """``relu_(x)`` becomes ``relu(x)``, which everything after it reads instead of ``x``.

    Buffers stay: writing to them is what makes them states.
    """
    written = [argument for argument in written_arguments(node) if argument.op != "get_attr"]
    if not written or node.target is ATEN.detach_.default:
        return
    (target,) = written
    plain = _without_writing(node)
    if plain is None or _seen_elsewhere(target, node):
        raise AliasesAreWritten
    result = editor.call(plain, *node.args, at=node, **node.kwargs)
    after = {later for later in target.users if later > node}
    target.replace_all_uses_with(result, delete_user_cb=lambda user: user in after)
    editor.replace(node, result)


def _seen_elsewhere(target: fx.Node, write: fx.Node) -> bool:
    """Whether the elements of ``target`` are read after ``write`` through another view of them."""
    base = target
    while base.target in _ALIASES:
        base = tensor_argument(base)
    views, family = [base], {base}
    while views:
        made = [user for user in views.pop().users if user.target in _ALIASES and user < write and user not in family]
        family |= set(made)
        views += made
    others = family - {target}
    return base.op != "call_function" or any(user > write for view in others for user in view.users)


def _without_writing(node: fx.Node) -> Any:  # noqa: ANN401 - an operator
    """The operator that does the same and writes nothing, or None."""
    name, _, overload = str(node.target).removeprefix("aten.").partition(".")
    packet = getattr(ATEN, name.removesuffix("_"), None)
    return getattr(packet, overload, None) if name.endswith("_") and packet is not None else None


def _acts(node: fx.Node) -> bool:
    return (
        node.op in {"placeholder", "output"}
        or bool(written_arguments(node))
        or (torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()))
    )
