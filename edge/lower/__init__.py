"""From a modulated model and a sampler to an ExecuTorch program: ``edge.lower.export.lower`` does it all."""
