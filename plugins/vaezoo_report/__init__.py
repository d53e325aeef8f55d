"""Reports: runs side by side on one HTML page that loads nothing."""
