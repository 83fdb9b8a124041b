"""Everything that trains; the only room that imports torch."""
