"""Probes of frozen features: functions from features, labels and settings to predictions and the choices behind them."""
