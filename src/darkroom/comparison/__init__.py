"""Several networks on one data set: planned into a budget, measured alike, and one chosen for stated reasons."""
