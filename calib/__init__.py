"""From a pretrained diffusion model to a modulated INT8 one: observe, quantize, plan, evaluate; pure PyTorch."""
