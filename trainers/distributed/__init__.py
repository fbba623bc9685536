"""Training on several devices and processes. May use `effcap` and `options`."""
