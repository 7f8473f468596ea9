"""The part that all benchmarks share: running, measuring, other libraries, and printing."""
