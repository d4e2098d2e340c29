"""Coverage of every interval of `em_interp.stats`, simulated where the truth is known."""
