"""Camera paths from videos: one small interface, several estimators."""
