"""Writers of the export targets."""
