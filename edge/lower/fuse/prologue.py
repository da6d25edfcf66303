"""Norms, activations, concatenations and upsampling become stages, and stages go into the layers that read them.

A layer runs its stages while it quantizes: nothing is written between. Several layers that read the same stages share
one ``modiff::normalize`` when it computes something, and each read in place when it only moves data.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from edge.calls import Activation, Norm
from edge.lower.fuse.graph import ATEN, RESHAPE, Editor, arguments, dtype_of, set_arguments, shape_of, tensor_argument
from edge.lower.fuse.stages import CONV, LAYERS, StageMaker, Stages, has_stages, stages_of
from edge.lower.fuse.tidy import drop_unread

if TYPE_CHECKING:
    from torch import fx

_ACTIVATIONS = {
    ATEN.silu.default: Activation.SILU,
    ATEN.relu.default: Activation.RELU,
}
_GELU = ATEN.gelu.default
_CAT = ATEN.cat.default
_ADD, _MUL = ATEN.add.Tensor, ATEN.mul.Tensor


def recognize(editor: Editor, stages: StageMaker) -> None:
    """Writes every activation, norm over channels and pair of concatenated inputs as stages."""
    for node in list(editor.graph.nodes):
        found = _recognized(node)
        if found is not None:
            editor.replace(node, stages.make(found, at=node))
    for node in list(editor.graph.nodes):
        if node.target in {_ADD, _MUL}:
            _take_affine(editor, stages, node)
    for node in list(editor.graph.nodes):
        if node.target is _CAT:
            _take_pair(editor, stages, node)
    _views_after_stages(editor, stages)
    drop_unread(editor)


def join(editor: Editor, stages: StageMaker) -> None:
    """Makes one call of neighbouring stages, and gives it to the layers that read it."""
    for node in list(editor.graph.nodes):
        later = stages_of(node)
        earlier = stages_of(later.x) if later is not None else None
        if later is None or earlier is None or not (len(later.x.users) == 1 or earlier.moves_only):
            continue
        joined = _joined(earlier, later)
        if joined is not None:
            editor.replace(node, stages.make(joined, at=node))
    drop_unread(editor)
    for node in list(editor.graph.nodes):
        found = stages_of(node)
        if found is not None:
            _give(editor, node, found)
    drop_unread(editor)


def _recognized(node: fx.Node) -> Stages | None:
    """The stages of a call of the model."""
    if node.op != "call_function" or dtype_of(node) is not torch.float32:
        return None
    if node.target in _ACTIVATIONS:
        return Stages(tensor_argument(node), activation=_ACTIVATIONS[node.target])
    if node.target is _GELU:
        tanh = arguments(node)["approximate"] == "tanh"
        return Stages(tensor_argument(node), activation=Activation.GELU_TANH if tanh else Activation.GELU)
    if node.target in {ATEN.layer_norm.default, ATEN.rms_norm.default}:
        given = arguments(node)
        if list(given["normalized_shape"]) != [shape_of(node)[-1]]:
            return None
        layer = node.target is ATEN.layer_norm.default
        eps = given["eps"] if given["eps"] is not None else float(torch.finfo(torch.float32).eps)
        norm = Norm.LAYER if layer else Norm.RMS
        return Stages(given["input"], norm=norm, eps=eps, weight=given["weight"], bias=given.get("bias"))
    return _sigmoid_gate(node) or _root_mean_square(node)


def _sigmoid_gate(node: fx.Node) -> Stages | None:
    """``x * sigmoid(x)`` is SiLU."""
    if node.target is not _MUL:
        return None
    for x, gate in (node.args[:2], node.args[1::-1]):
        if getattr(gate, "target", None) is ATEN.sigmoid.default and gate.args[0] is x:  # type: ignore[union-attr]
            return Stages(x, activation=Activation.SILU)  # type: ignore[arg-type]
    return None


def _root_mean_square(node: fx.Node) -> Stages | None:
    """``x * rsqrt(mean(x^2) + eps)`` over the last dimension."""
    if node.target is not _MUL:
        return None
    for x, factor in (node.args[:2], node.args[1::-1]):
        chain: list[fx.Node] = []
        for target in (ATEN.rsqrt.default, _ADD, ATEN.mean.dim, ATEN.pow.Tensor_Scalar):
            value = chain[-1].args[0] if chain else factor
            if getattr(value, "target", None) is not target:
                break
            chain.append(value)  # type: ignore[arg-type]
        else:
            _, plus, mean, square = chain
            over = [dim % len(shape_of(node)) for dim in mean.args[1]]  # type: ignore[union-attr, operator]
            last, eps = over == [len(shape_of(node)) - 1], plus.args[1]
            if last and isinstance(eps, float) and square.args == (x, 2):
                return Stages(x, norm=Norm.RMS, eps=eps)  # type: ignore[arg-type]
    return None


def _take_affine(editor: Editor, stages: StageMaker, node: fx.Node) -> None:
    """``norm(x) * scale`` and ``norm(x) + shift``, one value per image and channel, become weight and bias."""
    if is_scaled_add(node):
        return
    for source, other in (node.args[:2], node.args[1::-1]):
        found = stages_of(source)
        if found is None or found.norm == Norm.NONE or found.activation != Activation.NONE:
            continue
        vector = per_channel(editor, other, node, at=node)
        if found.upsample != 1 or len(source.users) != 1 or vector is None:  # type: ignore[union-attr]
            continue
        if node.target is _ADD:
            shift = vector if found.bias is None else editor.call(_ADD, vector, found.bias, at=node)
            changed = replace(found, bias=shift)
        else:
            weight = vector if found.weight is None else editor.call(_MUL, vector, found.weight, at=node)
            bias = None if found.bias is None else editor.call(_MUL, vector, found.bias, at=node)
            changed = replace(found, weight=weight, bias=bias)
        editor.replace(node, stages.make(changed, at=node))
        return


def is_scaled_add(node: fx.Node) -> bool:
    """Whether an addition has a factor for its second operand."""
    return node.target is _ADD and arguments(node)["alpha"] != 1


def per_channel(editor: Editor, value: object, like: fx.Node, *, at: fx.Node) -> fx.Node | None:
    """``value`` as [N or 1, C] when it is the same for all positions of ``like`` [N, ..., C], else None."""
    if not hasattr(value, "meta") or dtype_of(value) is not torch.float32:  # type: ignore[arg-type]
        return None
    wanted = shape_of(like)
    shape = shape_of(value)  # type: ignore[arg-type]
    if len(wanted) < 2 or not shape or len(shape) > len(wanted):
        return None
    full = (*[1] * (len(wanted) - len(shape)), *shape)
    images, positions, channels = full[0], full[1:-1], full[-1]
    if images not in {1, wanted[0]} or any(size != 1 for size in positions) or channels != wanted[-1]:
        return None
    return editor.reshape(value, [images, channels], at=at)  # type: ignore[arg-type]


def _take_pair(editor: Editor, stages: StageMaker, node: fx.Node) -> None:
    """Two maps side by side that only layers and stages read."""
    parts: list[fx.Node] = list(node.args[0])  # type: ignore[arg-type]
    last = int(arguments(node)["dim"]) % len(shape_of(node)) == len(shape_of(node)) - 1
    read = all(_takes_pairs(user) for user in node.users)
    if len(parts) == 2 and last and read and dtype_of(node) is torch.float32 and len(shape_of(node)) > 1:
        editor.replace(node, stages.make(Stages(parts[0], skip=parts[1]), at=node))


def _takes_pairs(user: fx.Node) -> bool:
    """Whether a call could read two maps as one."""
    found = stages_of(user)
    if found is not None:
        return found.skip is None
    layer = _reader(user)
    return layer is not None and not has_stages(arguments(layer))


def _views_after_stages(editor: Editor, stages: StageMaker) -> None:
    """``stages(view(x))`` becomes ``view(stages(x))`` where the view keeps images and channels apart."""
    for node in list(editor.graph.nodes):
        found = stages_of(node)
        if found is None or found.x.target is not RESHAPE or found.skip is not None or found.upsample != 1:
            continue
        inner = tensor_argument(found.x)
        if keeps_channels(found.x):
            made = stages.make(replace(found, x=inner), at=node)
            editor.replace(node, editor.reshape(made, list(shape_of(node)), at=node))


def keeps_channels(view: fx.Node) -> bool:
    """Whether a view leaves images and channels as they are and only arranges positions."""
    inner, outer = shape_of(tensor_argument(view)), shape_of(view)
    return len(inner) >= 3 and len(outer) >= 3 and (inner[0], inner[-1]) == (outer[0], outer[-1])


def _joined(earlier: Stages, later: Stages) -> Stages | None:
    """Both in one call, or None where they come in another order.

    Upsampling repeats elements, so that what follows it per element or per group may as well come before.
    """
    order = replace(earlier, upsample=1)
    if later.first <= order.last or (earlier.upsample != 1 and (later.skip is not None or later.upsample != 1)):
        return None
    computes = later.norm != Norm.NONE
    return Stages(
        x=earlier.x,
        skip=earlier.skip,
        norm=later.norm if computes else earlier.norm,
        groups=later.groups if computes else earlier.groups,
        eps=later.eps if computes else earlier.eps,
        weight=later.weight if computes else earlier.weight,
        bias=later.bias if computes else earlier.bias,
        activation=later.activation if later.activation != Activation.NONE else earlier.activation,
        upsample=max(earlier.upsample, later.upsample),
    )


def _give(editor: Editor, node: fx.Node, found: Stages) -> None:
    """Lets the layers that read ``node`` run its stages themselves, if all its readers are layers that can."""
    readers = [_reader(user) for user in node.users]
    if not readers or (len(readers) > 1 and not found.moves_only):
        return
    if any(reader is None or not _can_run(reader, found) for reader in readers):
        return
    for reader in readers:
        if reader is not None:
            _write_prologue(editor, reader, found)


def _reader(user: fx.Node) -> fx.Node | None:
    """The layer that reads a value as its input, perhaps through a view."""
    if user.target is RESHAPE and keeps_channels(user) and len(user.users) == 1:
        (layer,) = user.users
        return layer if layer.target in LAYERS and layer.args[0] is user else None
    return user if user.target in LAYERS else None


def _can_run(layer: fx.Node, found: Stages) -> bool:
    return not has_stages(arguments(layer)) and (found.upsample == 1 or layer.target is CONV)


def _write_prologue(editor: Editor, layer: fx.Node, found: Stages) -> None:
    """Writes ``found`` into a layer's arguments; its input is what ``found`` reads."""
    given = arguments(layer)
    shape = list(shape_of(given["x"]))
    if found.upsample != 1:
        shape = [shape[0], *(size // found.upsample for size in shape[1:-1]), shape[-1]]
    for name, source in (("x", found.x), ("skip", found.skip)):
        if source is not None:
            given[name] = editor.reshape(source, [*shape[:-1], shape_of(source)[-1]], at=layer)
    given |= {
        "norm": int(found.norm),
        "norm_groups": found.groups,
        "norm_eps": found.eps,
        "norm_weight": found.weight,
        "norm_bias": found.bias,
        "activation": int(found.activation),
    }
    if found.upsample != 1:
        given["upsample"] = found.upsample
        _shrink_lattice(editor, given["lattice"], shape)
    set_arguments(layer, given)


def _shrink_lattice(editor: Editor, lattice: fx.Node, shape: list[int]) -> None:
    """The lattice of an upsampled input is kept before upsampling: a quarter of the state."""
    state = editor.attribute(lattice)
    if state.dim() > 1:
        editor.set_attribute(lattice, torch.zeros([state.shape[0], *shape], dtype=state.dtype))
