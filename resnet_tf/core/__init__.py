"""Ground of the package: errors, files, metrics, class names, the machine."""
