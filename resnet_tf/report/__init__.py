"""What a run looks like. Reads files of a run and plain arrays only."""
