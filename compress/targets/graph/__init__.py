"""Graph rewriting shared by the targets that run ONNX files."""
