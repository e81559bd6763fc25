"""One module a format; each proves that the exported graph answers as the network does."""
