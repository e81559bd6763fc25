"""From stored predictions to metrics with intervals, calibration and figures."""
