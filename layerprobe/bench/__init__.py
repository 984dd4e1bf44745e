"""What a machine does with a model: each stage of a run alone, all of them together, and what to change."""
