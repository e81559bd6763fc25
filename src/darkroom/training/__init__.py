"""Training from scratch: the epoch loop, optimisers, schedules, budgets, checkpoints."""
