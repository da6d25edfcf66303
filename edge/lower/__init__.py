"""From a modulated model and a sampler to an ExecuTorch program."""
