"""The version, which is that of trivox."""

__version__ = "0.1.0"
