"""Recipes: one short file each, with a `get_config()` that returns a resnet_tf Config."""
