"""A trained model as ONNX: two graphs, and a program that captions with them and without torch."""
