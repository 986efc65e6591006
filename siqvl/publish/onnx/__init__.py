"""A checkpoint as ONNX graphs, which onnxruntime runs without PyTorch and transformers' models."""
