"""Other ways to run the same network: ExecuTorch with XNNPACK, ONNX Runtime, ncnn."""
