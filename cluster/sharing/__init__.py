"""A model made ready for others: its card, its ONNX graphs, and how they were checked."""
