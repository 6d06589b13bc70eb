"""The shell around the core: it takes inputs, journals what the core decides, and sends what follows. No decisions."""
