"""SavedModels that take pictures as they are and answer with classes."""
