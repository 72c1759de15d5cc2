"""Export, serving and prediction: SavedModels from encoded images to classes, LiteRT and ONNX."""
