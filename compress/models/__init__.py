"""What is compressed: encoders as float ONNX towers with named sites, from Hugging Face models or from ONNX files."""
