"""The command line; see `app`."""

from fastdl.cli.app import app, main

__all__ = ["app", "main"]
