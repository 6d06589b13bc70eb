"""The worker: takes assignments from its lanes, runs users' steps in its slots, reports what became of them."""
