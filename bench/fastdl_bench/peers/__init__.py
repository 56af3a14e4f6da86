"""One small program per library, each run in a process of its own; `fastdl_bench.protocol` says how they are talked to."""
