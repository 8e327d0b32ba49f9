"""The page on one's own machine, for photos and people who do not type."""
