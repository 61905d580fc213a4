"""Teachers of any kind: trained here, or weights, scores and detectors that exist already."""
