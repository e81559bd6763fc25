"""Drawing only: arrays and plain values in, an SVG and a PNG beside each other out."""
