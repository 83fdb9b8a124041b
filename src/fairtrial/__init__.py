"""Give every optimizer setting a fair trial."""

__version__ = "0.1.0"
