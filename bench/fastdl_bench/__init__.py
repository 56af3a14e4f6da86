"""How fast fastdl is here: against other libraries, and against what the processor can do. Run `scripts/bench`."""
