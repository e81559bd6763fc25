"""From a data set as the user has it to seeded batches of tensors."""
