"""A second reader of Candor backups, written from docs/formats and vectors alone."""
