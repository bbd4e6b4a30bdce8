"""What TensorRT's strongly typed networks and its ONNX parser want (NVIDIA's documentation of both)."""
