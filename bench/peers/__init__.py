"""One small program per library, each run in a process of its own; `bench.protocol` says how they are talked to."""
