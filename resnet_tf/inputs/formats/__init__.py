"""Image formats: checks and cuts of encoded images, in graph operations, before TensorFlow decodes them."""
