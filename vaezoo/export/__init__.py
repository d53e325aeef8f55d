"""Export of trained models to ONNX, torch.export and safetensors."""
