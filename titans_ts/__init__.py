"""Time-series forecasting with a Titans neural memory that keeps learning as rows arrive."""
