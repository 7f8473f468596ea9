"""The laboratory: data, training runs on disk, comparisons, experiments and reports."""
