"""Training one network: configuration, learning rate, engines, devices."""
