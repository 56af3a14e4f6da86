"""The engine: runs a network over flat buffers, on workspaces that are made once.

`Engine` predicts and differentiates; a `Session` adds an optimizer's states and workspaces for mini-batches.
"""

from fastdl.engine.engine import Engine
from fastdl.engine.session import Session, Settings

__all__ = ["Engine", "Session", "Settings"]
