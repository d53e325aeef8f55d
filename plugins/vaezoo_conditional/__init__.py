"""Models that are told the class."""
