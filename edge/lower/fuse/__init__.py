"""Graph fusion: a step program made of the kit's operators, channels last, with nothing between them.

``prepare`` and ``fuse`` are the pass; each module beside it is one subject of it, in the order in which they run:

    tidy        one way to say one thing, no writing to activations
    attention   one operator for an attention
    layout      permutations sink and cancel
    prologue    norms, activations, concatenations, upsampling go into the layer that reads them
    epilogue    shift, activation, gate, residual go into the layer before them
    liveness    what nobody reads at a step is switched off

FUSION.md beside the package says what is recognized. What is not recognized stays as it was.
"""

from edge.lower.fuse.run import fuse, prepare

__all__ = ["fuse", "prepare"]
