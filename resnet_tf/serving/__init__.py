"""Export, serving and prediction: SavedModels from encoded images to classes, LiteRT, ONNX and OpenVINO."""
