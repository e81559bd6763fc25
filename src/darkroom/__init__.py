"""darkroom develops a set of labelled pictures into an image classifier that can be trusted, explained and served."""

__version__ = "0.1.0"
