"""The version of the package, and of the whole project. A release is tagged with a v in front of it."""

__version__ = "0.1.0"
