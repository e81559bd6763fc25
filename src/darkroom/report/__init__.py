"""Reports and slides of finished runs and comparisons, whose every number comes from a file and can be traced to it."""
