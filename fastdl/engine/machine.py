"""What the machine grants the process, for rooms that do not reach the kernels."""

from fastdl_kernels.host import memory_limit

__all__ = ["memory_limit"]
