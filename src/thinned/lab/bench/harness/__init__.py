"""How benchmarks measure, and how they show what they measured."""
