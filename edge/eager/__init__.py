"""The operators on the host, slow on purpose: they check exported graphs and kernels, and never sample.

Integers are those of ``calib.lattice``, bit for bit. Float parts (norms, activations, attention) are computed in
float64 and rounded once, so that they differ from the kernels, which have a fixed order of float32 operations, by a
few units in the last place. An output that the operators leave undefined is NaN here.
"""
