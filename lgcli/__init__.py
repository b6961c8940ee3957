"""The command line of lgm: thin, starts fast, and the only place that prints."""
