"""The engine: runs a network over flat buffers, on workspaces that are made once.

`Engine` predicts and differentiates; a `Session` adds an optimizer's states and workspaces for mini-batches.
"""

from fastdl.engine.engine import Engine
from fastdl.engine.session import Session
from fastdl.engine.settings import START, Place, Settings, State
from fastdl.engine.thread_tuner import most_threads
from fastdl.engine.workspace import keeps_all_cores_busy

__all__ = ["START", "Engine", "Place", "Session", "Settings", "State", "keeps_all_cores_busy", "most_threads"]
